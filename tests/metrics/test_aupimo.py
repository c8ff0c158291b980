import tracemalloc
from itertools import pairwise

import numpy as np
import pytest

from iadbe.curves.curve import Curve
from iadbe.errors import BadConfig
from iadbe.metrics.aupimo import AUPIMO


def reference_aupimo(truth, score, low, high):
    """Take every score as a threshold, its rate from each good image, and add up the rectangles in log rate."""
    good = ~truth.any(axis=(1, 2))
    thresholds = np.append(np.unique(score)[::-1], -np.inf)
    above = [np.mean([np.mean(m > t) for m in score[good]]) for t in thresholds]  # shared rate: mean of rates
    values = []
    for mask, own in zip(truth[~good], score[~good], strict=True):
        recall = np.array([np.mean(own[mask] > t) for t in thresholds])
        total, rates = 0.0, np.array(above)
        edges = np.unique(np.clip([*rates, low, high], low, high))
        for a, b in pairwise(edges):
            total += recall[rates <= a + 1e-15].max() * np.log(b / a)  # the most that a rate up to there allows
        values.append(total / np.log(high / low))
    return np.array(values)


def draw(seed, levels=None, size=(8, 9)):
    rng = np.random.default_rng(seed)
    truth = np.zeros((6, *size), dtype=bool)
    for n in (1, 2, 4):
        truth[n, 2 : 2 + int(rng.integers(1, 5)), 3:7] = True
    score = rng.normal(size=truth.shape) + 2 * truth
    return truth, np.round(score * levels) / levels if levels else score


@pytest.mark.parametrize("bounds", [(0.01, 0.1), (1e-3, 0.5), (0.02, 0.021), (1e-5, 1e-4)])
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed, levels, bounds):
    truth, score = draw(seed, levels)
    expected = reference_aupimo(truth, score, *bounds)
    curve = Curve(truth, score)
    np.testing.assert_allclose(AUPIMO(*bounds).of_each(curve), expected, atol=1e-9)
    assert AUPIMO(*bounds).value(curve) == pytest.approx(expected.mean(), abs=1e-9)


def test_many_interpolated_thresholds_come_close():
    """The authors' way, on maps large enough for their bounds: 300 000 thresholds, trapezoids over the logarithm."""
    truth, score = draw(1, size=(250, 250))
    truth[1, 20:60, 20:60] = True
    score += 1.5 * truth
    normal = np.sort(score[~truth.any(axis=(1, 2))].ravel())
    grid = np.linspace(normal[0], normal[-1], 300_000)
    rate = 1 - np.searchsorted(normal, grid, side="left") / normal.size
    within = (rate >= 1e-5) & (rate <= 1e-4)
    values = []
    for n in (1, 2, 4):
        defect = np.sort(score[n][truth[n]])
        recall = 1 - np.searchsorted(defect, grid[within], side="left") / defect.size
        x, y = np.log(rate[within])[::-1], recall[::-1]
        values.append(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / np.log(10))
    assert AUPIMO()(truth, score) == pytest.approx(np.mean(values), abs=0.02)


def test_only_good_images_set_the_rate():
    truth, score = draw(2)
    expected = AUPIMO(0.01, 0.1)(truth, score)
    score[1][~truth[1]] = 99.0  # clean pixels of a defective image
    assert AUPIMO(0.01, 0.1)(truth, score) == expected
    score[0, 0, 0] = 99.0
    assert AUPIMO(0.01, 0.1)(truth, score) < expected


def test_images_have_equal_weight_whatever_the_size_of_the_defect():
    truth = np.zeros((3, 4, 5), dtype=bool)
    truth[1, :2] = truth[2, 0, 0] = True
    score = np.where(truth, 1.0, 0.0)
    score[2, 0, 0] = -1.0
    assert AUPIMO()(truth, score) == pytest.approx(0.5, abs=1e-12)


def test_without_good_or_defective_images_it_is_nan():
    truth, score = draw(0)
    some = truth.any(axis=(1, 2))
    assert np.isnan(AUPIMO()(truth[some], score[some]))
    assert np.isnan(AUPIMO()(truth[~some], score[~some]))


def test_it_needs_hardly_any_memory_above_the_maps():
    rng = np.random.default_rng(0)
    score = rng.random((40, 256, 256), dtype=np.float32)
    truth = np.zeros(score.shape, dtype=bool)
    truth[::2, 10:30, 10:30] = True
    curve = Curve(truth, score)
    tracemalloc.start()
    AUPIMO().value(curve)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < score.nbytes / 4


@pytest.mark.parametrize("bounds", [(0.0, 0.1), (0.2, 0.1), (0.1, 1.0)])
def test_unordered_rates_are_an_error(bounds):
    with pytest.raises(BadConfig, match="0 < low < high < 1"):
        AUPIMO(*bounds)
