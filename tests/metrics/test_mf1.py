import numpy as np
import pytest

from iadbe.metrics.f1max import F1Max
from iadbe.metrics.mf1 import MF1


def literal(truth, score):
    scaled = (score - score.min()) / (score.max() - score.min())
    found = []
    for tenths in range(2, 9):
        cut = scaled > tenths / 10 + 1e-6
        found.append(2 * (cut & truth).sum() / (cut.sum() + truth.sum()))
    return sum(found) / 7


@pytest.mark.parametrize("levels", [0, 11, 40])
def test_it_is_the_definition(levels):
    rng = np.random.default_rng(levels)
    truth = rng.random((5, 20, 30)) < 0.1
    score = rng.normal(size=truth.shape) + 2 * truth
    score = np.round(score * levels / 4) if levels else score  # ties on the thresholds themselves
    assert MF1()(truth, score) == pytest.approx(literal(truth, score), abs=1e-12)


def test_worked_by_hand():
    truth = np.array([[[True, True, False, False]]])
    score = np.array([[[1.0, 0.5, 0.45, 0.0]]])  # above .2 .3 .4: 3 called; .5: 1 (on it is not above); .6 .7 .8: 1
    assert MF1()(truth, score) == pytest.approx((3 * 4 / 5 + 4 * 2 / 3) / 7)


def test_one_extreme_pixel_lowers_it_but_not_f1max():
    rng = np.random.default_rng(1)
    truth = rng.random((4, 30, 30)) < 0.1
    score = rng.random(truth.shape) + truth
    loud = score.copy()
    loud[0, 0, 0] = 100.0
    assert MF1()(truth, score) > 0.6
    assert MF1()(truth, loud) < 0.02
    assert abs(F1Max()(truth, loud) - F1Max()(truth, score)) < 0.01
