import math

import pytest
import torch

from iadbe.layers.statistics.divergence import kl_divergence


def test_the_divergence_is_that_of_two_gaussians():
    """Against the integral of q log(q/p), by a sum over a fine grid, per dimension."""
    mean, deviation = torch.tensor([[0.5, -1.0], [2.0, 0.0]]), torch.tensor([[0.3, 1.0], [2.0, 1.5]])
    z = torch.linspace(-20, 20, 40001, dtype=torch.float64)
    expected = []
    for row in range(2):
        total = 0.0
        for m, s in zip(mean[row].double(), deviation[row].double(), strict=True):
            log_q = -((z - m) ** 2) / (2 * s**2) - s.log() - 0.5 * math.log(2 * math.pi)
            log_p = -(z**2) / 2 - 0.5 * math.log(2 * math.pi)
            total += float((log_q.exp() * (log_q - log_p)).sum() * 0.001)
        expected.append(total)
    assert kl_divergence(mean, 2 * deviation.log()).tolist() == pytest.approx(expected, rel=1e-4)
    assert kl_divergence(torch.zeros(1, 3), torch.zeros(1, 3)).tolist() == [0]
