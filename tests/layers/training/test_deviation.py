import numpy as np
import pytest
import torch

from iadbe.layers.training.deviation import deviation_loss, top_mean


def test_the_loss_is_that_of_the_equations():
    scores, anomalous = [0.4, 1.5, 3.0, 7.0], [False, False, True, True]
    prior = torch.randn(5000, generator=torch.Generator().manual_seed(3)).numpy()
    mean, deviation = prior.mean(dtype=np.float64), prior.std(ddof=1, dtype=np.float64)
    terms = []
    for score, label in zip(scores, anomalous, strict=True):
        d = (score - mean) / deviation
        terms.append(max(0.0, 5 - d) if label else abs(d))
    found = deviation_loss(torch.tensor(scores), torch.tensor(anomalous), torch.Generator().manual_seed(3))
    assert float(found) == pytest.approx(np.mean(terms), rel=1e-5)
    assert terms[3] == 0  # far enough above the prior


def test_the_highest_share_is_averaged():
    scores = torch.arange(24.0).view(2, 3, 4)
    torch.testing.assert_close(top_mean(scores, 0.25), torch.tensor([10.0, 22.0]))
    torch.testing.assert_close(top_mean(scores, 0.3), torch.tensor([10.0, 22.0]))  # rounded down
    torch.testing.assert_close(top_mean(scores, 0.01), torch.tensor([11.0, 23.0]))  # at least one
    torch.testing.assert_close(top_mean(scores, 1.0), torch.tensor([5.5, 17.5]))
