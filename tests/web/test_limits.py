import pytest

from iadbe.web import limits
from iadbe.web.limits import Rate


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def test_so_many_at_once_and_then_evenly(clock):
    rate = Rate(6, clock)
    assert [rate.wait("a") for _ in range(7)] == [0] * 6 + [10]
    assert rate.wait("b") == 0
    clock.now += 10
    assert [rate.wait("a"), rate.wait("a")] == [0, 10]
    clock.now += 3600
    assert [rate.wait("a") for _ in range(7)] == [0] * 6 + [10]


def test_many_at_once_are_paid_for_afterwards(clock):
    rate = Rate(6, clock)
    assert rate.wait("a", 12) == 0
    assert rate.wait("a") == 70  # it owes six, which takes a minute, and one more
    clock.now += 70
    assert rate.wait("a") == 0


def test_a_refusal_costs_nothing(clock):
    rate = Rate(6, clock)
    rate.wait("a", 6)
    assert [rate.wait("a") for _ in range(5)] == [10] * 5


def test_is_spent_takes_nothing(clock):
    rate = Rate(2, clock)
    assert not rate.is_spent("a")
    rate.wait("a", 2)
    assert rate.is_spent("a")
    clock.now += 30
    assert not rate.is_spent("a")
    assert not rate.is_spent("a")


def test_it_forgets_old_clients(clock, monkeypatch):
    monkeypatch.setattr(limits, "KNOWN", 3)
    rate = Rate(1, clock)
    for name in "abcd":
        rate.wait(name)
    assert len(rate._left) == 3
    assert rate.wait("d") > 0
