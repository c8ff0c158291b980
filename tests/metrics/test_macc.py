import numpy as np
import pytest

from iadbe.metrics.macc import MAcc


def test_it_is_a_recall():
    truth = np.array([[[True, True, False, False]]])
    score = np.array([[[0.75, 0.25, 1.0, 0.0]]])
    assert MAcc()(truth, score) == pytest.approx((1 + 5 * 0.5 + 0) / 7)


def test_false_positives_do_not_count():
    truth = np.zeros((1, 10, 10), bool)
    truth[0, :3] = True
    low = np.full(truth.shape, 0.9)
    low[0, 0, 0], low[0, 9, 9] = 1.0, 0.0
    assert MAcc()(truth, low) == pytest.approx(1.0)  # though nearly everything is called defective


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((3, 16, 16)) < 0.2
    score = rng.gamma(1.0, size=truth.shape) + truth
    scaled = (score - score.min()) / (score.max() - score.min())
    assert MAcc()(truth, score) == pytest.approx(np.mean([(scaled[truth] > t / 10).mean() for t in range(2, 9)]))
