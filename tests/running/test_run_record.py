import pytest

from iadbe import progress
from iadbe.running.run_record import RunRecord
from iadbe.types import Options, Row, RunSpec, Score


@pytest.fixture
def record():
    spec = RunSpec("golden", "toy", "vanilla", "nut", protocol="uniform+2cpu-s")
    return RunRecord(spec, Options(), None)


def test_an_error_leaves_no_numbers(record):
    record.rows.append(Row(0, "nut", "image_auroc", 1.0))
    record.scores.append(Score(0, "nut", "a", "nut", "good", 0.5))
    assert len(record.result().rows) == len(record.result().scores) == 1
    record.error = "it broke"
    assert record.result().rows == record.result().scores == ()
    assert record.result().error == "it broke"


def test_times_of_a_phase_add_up(record):
    for _ in range(2):
        with record.timed("fit"):
            sum(range(10**5))
    assert record.seconds["fit"] >= record.cpu_seconds["fit"] * 0.5 > 0


def test_notes_are_told_once(record):
    record.notes += ["a", "b", "a"]
    assert record.result().notes == ("a", "b")


def test_training_has_the_budget_of_the_protocol(record):
    record.device = "cpu"
    with record.limited(share=0.5):
        (given,) = progress.budgets()
        assert (given.seconds, given.cpu) == (1.0, True)
