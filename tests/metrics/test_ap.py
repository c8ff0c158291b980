import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from iadbe.metrics.ap import AP


@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(16))
def test_equals_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    shape = (int(rng.integers(20, 200)),) if seed % 2 else (4, 11, 13)
    truth = rng.random(shape) < rng.uniform(0.05, 0.9)
    truth.flat[:2] = [True, False]
    score = rng.normal(size=shape) + rng.uniform(-1, 3) * truth
    score = np.round(score * levels) / levels if levels else score
    assert AP()(truth, score) == pytest.approx(average_precision_score(truth.ravel(), score.ravel()), abs=1e-9)


def test_known_values():
    truth = np.array([True, False, True, False])
    assert AP()(truth, np.array([4.0, 3.0, 2.0, 1.0])) == pytest.approx((1 + 2 / 3) / 2)  # a trapezoid gives 0.8125
    assert AP()(truth, np.array([4.0, 2.0, 2.0, 1.0])) == pytest.approx((1 + 2 / 3) / 2)  # the tie falls together
    assert AP()(truth, np.zeros(4)) == 0.5  # the share of defects
