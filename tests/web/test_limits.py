import threading
import time

import pytest

from iadbe.web import limits
from iadbe.web.limits import FairLock, RateLimiter


@pytest.fixture
def clock():
    class Clock:
        now = 100.0

        def __call__(self):
            return self.now

    return Clock()


def test_a_burst_and_then_an_even_rate(clock):
    rate = RateLimiter(6, clock)
    assert [rate.take("a") for _ in range(7)] == [0] * 6 + [10]
    assert rate.take("b") == 0
    clock.now += 10
    assert [rate.take("a"), rate.take("a")] == [0, 10]
    clock.now += 3600
    assert [rate.take("a") for _ in range(7)] == [0] * 6 + [10]


def test_a_count_above_the_size_leaves_a_debt(clock):
    rate = RateLimiter(6, clock)
    assert rate.take("a", 12) == 0
    assert rate.take("a") == 70  # it owes six, which takes a minute, and one more
    clock.now += 70
    assert rate.take("a") == 0


def test_a_refusal_takes_no_token(clock):
    rate = RateLimiter(6, clock)
    rate.take("a", 6)
    assert [rate.take("a") for _ in range(5)] == [10] * 5


def test_old_clients_are_forgotten(clock, monkeypatch):
    monkeypatch.setattr(limits, "MAX_CLIENTS", 3)
    rate = RateLimiter(1, clock)
    for name in "abcd":
        rate.take(name)
    assert len(rate._buckets) == 3
    assert rate.take("d") > 0


def test_a_fair_lock_is_granted_in_order():
    lock, order = FairLock(), []
    assert lock.acquire(0)
    assert not lock.acquire(0.01)

    def enter(number):
        assert lock.acquire(10)
        order.append(number)
        lock.release()

    threads = [threading.Thread(target=enter, args=(n,)) for n in range(5)]
    for count, thread in enumerate(threads, 2):
        thread.start()
        while len(lock._waiting) < count:
            time.sleep(0.001)
    lock.release()
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert lock.acquire(0)
