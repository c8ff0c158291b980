import numpy as np
import pytest

from iadbe.metrics.f1max import F1Max
from iadbe.metrics.iou_max import IoUMax


@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed, levels):
    rng = np.random.default_rng(seed)
    truth = rng.random((3, 9, 8)) < 0.2
    score = rng.normal(size=truth.shape) + truth
    score = np.round(score * levels) / levels if levels else score
    cuts = [score >= t for t in np.unique(score)]
    best = max(np.sum(truth & cut) / np.sum(truth | cut) for cut in cuts)
    found = IoUMax()(truth, score)
    assert found == pytest.approx(best, abs=1e-12)
    f1 = F1Max()(truth, score)
    assert found == pytest.approx(f1 / (2 - f1), abs=1e-12)
