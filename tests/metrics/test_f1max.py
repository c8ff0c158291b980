import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from iadbe.metrics.f1max import F1Max


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(16))
def test_equals_scikit_learn_at_its_best_threshold(seed, levels):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 200)),) if seed % 2 else (4, 11, 13)
    truth = rng.random(shape) < rng.uniform(0.05, 0.9)
    truth.flat[:2] = [True, False]
    score = rng.normal(size=shape) + rng.uniform(-1, 3) * truth
    score = np.round(score * levels) / levels if levels else score
    precision, recall, _ = precision_recall_curve(truth.ravel(), score.ravel())
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert F1Max()(truth, score) == pytest.approx(f1.max(), abs=1e-9)


def test_known_values():
    truth = np.array([True, False, True, False])
    assert F1Max()(truth, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx(0.8)  # above 2: P 2/3, R 1
    assert F1Max()(truth, np.array([4.0, 3.0, 3.0, 1.0])) == pytest.approx(0.8)
    assert F1Max()(truth, np.zeros(4)) == pytest.approx(2 / 3)  # all called defects


def test_heavy_tails_do_not_hide_the_best_threshold():
    """A grid of equal steps from the least to the greatest score sees only the one outlier."""
    truth = np.array([True] * 10 + [False] * 10)
    score = np.concatenate([[1e6], np.linspace(2, 3, 9), np.linspace(0, 1, 10)])
    assert F1Max()(truth, score) == 1.0
