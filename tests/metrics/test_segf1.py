import numpy as np
import pytest
from sklearn.metrics import f1_score

from iadbe.metrics.segf1 import SegF1


@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((4, 20, 20)) < 0.1
    score = (rng.normal(size=truth.shape) + 3 * truth).astype(np.float32)
    held_out = rng.normal(size=(2, 20, 20)).astype(np.float32)
    threshold = held_out.astype(float).mean() + 3 * held_out.astype(float).std()
    expected = f1_score(truth.ravel(), score.ravel() > threshold)
    assert 0.3 < expected < 1.0
    assert SegF1()(truth, score, held_out=held_out) == pytest.approx(expected, abs=1e-12)


def test_the_threshold_does_not_depend_on_test_defects():
    truth = np.array([[[True, False, False]]])
    held_out = np.array([[[0.0, 1.0]]])  # mean 0.5, deviation 0.5: what is above 2 is called defect
    assert SegF1()(truth, np.array([[[2.1, 1.9, 2.0]]]), held_out=held_out) == 1.0
    assert SegF1()(truth, np.array([[[1e9, 2.1, 0.0]]]), held_out=held_out) == pytest.approx(2 / 3)
    assert SegF1(1.0)(truth, np.array([[[1e9, 2.0, 1.1]]]), held_out=held_out) == 0.5


def test_zero_without_predictions_and_nan_without_held_out_images():
    truth, score = np.array([[[True, False]]]), np.array([[[0.0, 1.0]]])
    assert SegF1()(truth, score, held_out=np.full((1, 1, 2), 5.0)) == 0.0
    assert np.isnan(SegF1()(truth, score))


def test_half_precision_far_from_zero_is_accurate():
    rng = np.random.default_rng(0)
    held_out = (10_000 + rng.normal(size=(3, 64, 64))).astype(np.float32)
    truth = np.zeros((1, 8, 8), dtype=bool)
    truth[0, 0] = True
    score = np.where(truth, 10_003.2, 10_002.8).astype(np.float32)
    assert SegF1()(truth, score, held_out=held_out) == 1.0
