import numpy as np
import pytest

from iadbe.metrics.mf1 import MF1
from iadbe.metrics.miou import MIoU


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_definition(seed):
    rng = np.random.default_rng(seed)
    truth = rng.random((3, 16, 16)) < 0.2
    score = rng.normal(size=truth.shape) + truth
    scaled = (score - score.min()) / (score.max() - score.min())
    cuts = [scaled > t / 10 for t in range(2, 9)]
    values = [(cut & truth).sum() / (cut | truth).sum() for cut in cuts]
    assert MIoU()(truth, score) == pytest.approx(np.mean(values), abs=1e-12)
    assert MIoU()(truth, score) <= MF1()(truth, score)
