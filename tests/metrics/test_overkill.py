import numpy as np
import pytest

from iadbe.errors import BadConfig
from iadbe.metric import parse
from iadbe.metrics.overkill import Overkill


def reference_overkill(truth, score, escape):
    """Try every threshold from the top, reject what is at or above it, stop when few enough defects escape."""
    for t in np.unique(score)[::-1]:
        if np.mean(score[truth] < t) <= escape + 1e-12:
            return np.mean(score[~truth] >= t)
    raise AssertionError


def draw(seed, levels=None):
    rng = np.random.default_rng(seed)
    truth = rng.random(50) < 0.4
    score = rng.normal(size=50) + 1.5 * truth
    return truth, np.round(score * levels) / levels if levels else score


@pytest.mark.parametrize("escape", [0.0, 0.05, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed, levels, escape):
    truth, score = draw(seed, levels)
    assert Overkill(escape)(truth, score) == pytest.approx(reference_overkill(truth, score, escape), abs=1e-12)


def test_one_low_scoring_defect_decides():
    truth = np.array([True] * 9 + [False] * 10)
    score = np.array([9.0] * 8 + [2.5] + [1.0] * 5 + [2.0, 3.0, 3.0, 3.0, 4.0])
    assert Overkill()(truth, score) == 0.4
    assert Overkill(1 / 9)(truth, score) == 0.0  # one of nine may go


def test_ties_with_the_lowest_defect_are_rejected():
    assert Overkill()(np.array([True, False, False]), np.array([1.0, 1.0, 0.0])) == 0.5


def test_the_held_out_threshold_does_not_depend_on_the_test_set():
    truth = np.array([True, True, False, False, False, False])
    score = np.array([9.0, 0.1, 1.0, 2.5, 3.0, 3.5])
    held_out = np.array([0.0, 1.0, 2.0, 3.0])
    at = {share: Overkill(share, "held_out")(truth, score, held_out=held_out) for share in (0.0, 0.25, 0.3, 0.75)}
    assert at == {0.0: 0.25, 0.25: 0.75, 0.3: 0.75, 0.75: 1.0}  # what is above 3, 2, 2 and 0
    assert np.isnan(Overkill(0.0, "held_out")(truth, score))
    assert np.isnan(Overkill(0.0, "held_out")(truth, score, held_out=held_out[:0]))
    other = np.where(truth, -5.0, score)
    assert Overkill(0.25, "held_out")(truth, other, held_out=held_out) == at[0.25]


def test_the_row_name_sets_the_share():
    assert parse("image_overkill")[1].share == 0
    assert parse("image_overkill@1%")[1].share == 0.01
    metric = parse("image_overkill.held_out@10%")[1]
    assert (metric.dialect, metric.share, metric.needs) == ("held_out", 0.1, {"held_out"})
    with pytest.raises(BadConfig, match="below 100%"):
        parse("image_overkill@100%")
    with pytest.raises(BadConfig, match="overkill.share"):
        Overkill(-0.1)
