import numpy as np
import pytest

from iadbe.errors import BadConfig
from iadbe.metric import parse
from iadbe.metrics.escape import Escape


def reference_escape(truth, score, overkill):
    """Try every threshold, from above the top, and take the lowest that rejects few enough good ones."""
    best = 1.0
    for t in np.append(np.inf, np.unique(score)[::-1]):
        if np.mean(score[~truth] >= t) <= overkill + 1e-12:
            best = np.mean(score[truth] < t)
    return best


def draw(seed, levels=None):
    rng = np.random.default_rng(seed)
    truth = rng.random(50) < 0.4
    score = rng.normal(size=50) + 1.5 * truth
    return truth, np.round(score * levels) / levels if levels else score


@pytest.mark.parametrize("overkill", [0.0, 0.05, 0.1, 0.5, 0.97])
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed, levels, overkill):
    truth, score = draw(seed, levels)
    assert Escape(overkill)(truth, score) == pytest.approx(reference_escape(truth, score, overkill), abs=1e-12)


def test_at_zero_overkill_defects_below_the_highest_good_score_escape():
    truth, score = np.array([True, True, True, False, False]), np.array([3.0, 2.0, 0.5, 1.0, 2.0])
    assert Escape(0.0)(truth, score) == pytest.approx(2 / 3)  # 2.0 is the score of a good one, too
    assert Escape(0.5)(truth, score) == pytest.approx(1 / 3)
    assert Escape(0.0)(truth, np.array([1.0, 1.0, 1.0, 2.0, 2.0])) == 1.0


def test_the_held_out_threshold_does_not_depend_on_the_test_set():
    truth, score = np.array([True] * 4 + [False]), np.array([0.5, 2.0, 2.5, 9.0, 99.0])
    held_out = np.array([0.0, 1.0, 2.0, 3.0])
    at = {share: Escape(share, "held_out")(truth, score, held_out=held_out) for share in (0.0, 0.25, 0.5)}
    assert at == {0.0: 0.75, 0.25: 0.5, 0.5: 0.25}
    assert np.isnan(Escape(0.05, "held_out")(truth, score))


def test_the_row_name_sets_the_overkill():
    assert parse("image_escape")[1].overkill == 0.05
    assert parse("image_escape@5%")[1].label == "escape"
    assert parse("image_escape@0%")[1].label == "escape@0%"
    with pytest.raises(BadConfig, match="below 100%"):
        parse("image_escape@x")
    with pytest.raises(BadConfig, match="escape.overkill"):
        Escape(1.0)
