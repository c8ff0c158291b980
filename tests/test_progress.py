import pytest

from iadbe import progress
from iadbe.progress import Report


def test_reports_reach_the_listener_of_the_block_and_no_other():
    heard, inner = [], []
    progress.report("fit", 1, 2)  # nobody listens
    with progress.listening(heard.append):
        progress.report("fit", 1, 2)
        with progress.listening(inner.append):
            progress.loss(0.5)
        progress.report("predict", 3)
    progress.loss(0.1)
    assert heard == [Report("fit", 1, 2), Report("predict", 3, 0)]
    assert inner == [Report("loss", value=0.5)]


def test_a_listener_goes_even_when_the_block_fails():
    heard = []
    try:
        with progress.listening(heard.append):
            raise ValueError
    except ValueError:
        pass
    progress.report("fit", 1)
    assert heard == []


@pytest.mark.parametrize(("clock", "cpu"), [("monotonic", False), ("process_time", True)])
def test_a_budget_is_spent_when_its_seconds_have_passed(monkeypatch, clock, cpu):
    now = [100.0]
    monkeypatch.setattr(progress.time, clock, lambda: now[0])
    assert not progress.time_is_up()
    with progress.budget(5, cpu) as five:
        now[0] = 104.9
        assert not progress.time_is_up()
        now[0] = 105.0
        assert not five.ended
        assert progress.time_is_up()
        assert five.ended
        with progress.budget(None):
            assert not progress.time_is_up()
        assert progress.time_is_up()
    assert not progress.time_is_up()


@pytest.mark.parametrize(("clock", "cpu"), [("monotonic", False), ("process_time", True)])
def test_a_portion_leaves_time_for_what_comes_after_it(monkeypatch, clock, cpu):
    now = [100.0]
    monkeypatch.setattr(progress.time, clock, lambda: now[0])
    with progress.budget(10, cpu) as whole:
        now[0] += 2
        with progress.budget_share(0.25):  # two of the eight seconds that are left
            now[0] += 1.5
            assert not progress.time_is_up()
            now[0] += 1
            assert progress.time_is_up()
        assert whole.ended  # which the result will say
        assert not progress.time_is_up()
        now[0] += 6
        assert progress.time_is_up()


def test_a_portion_of_no_limit_is_none():
    with progress.budget_share(0.25):
        assert not progress.time_is_up()
    with progress.budget(None) as whole, progress.budget_share(0.0):
        assert not progress.time_is_up()
    assert not whole.ended


def test_two_may_listen_at_once():
    first, second = [], []
    with progress.listening(first.append):
        with progress.adding_listener(second.append):
            progress.loss(0.5)
        progress.loss(0.25)
    with progress.adding_listener(second.append):
        progress.loss(0.1)
    assert [r.value for r in first] == [0.5, 0.25]
    assert [r.value for r in second] == [0.5, 0.1]


def test_steps_are_summed_over_loops():
    progress.training_steps(1, 2)  # nobody counts
    with progress.counting_steps() as count:
        progress.training_steps(3, 10)
        progress.training_steps(4, 4)
    assert (count.done, count.planned) == (7, 14)


def test_a_note_stands_in_the_list_of_the_block_once():
    progress.note("nobody listens")
    found = ["first"]
    with progress.collecting_notes(found):
        progress.note("second")
        progress.note("second")
    progress.note("too late")
    assert found == ["first", "second"]
