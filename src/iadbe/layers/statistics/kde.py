"""Gaussian kernel density estimation in principal components.

The covariance of the kernels is that of the data times the square of Scott's factor (Scott, "Multivariate Density
Estimation", 1992). Sums are over logarithms, so the log-density still falls where the density is 0 in floating point.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iadbe.layers.features.row_chunks import row_chunks
from iadbe.layers.memory_bank.nearest_neighbours import squared_distances
from iadbe.layers.statistics.pca import pca

CHUNK = 2**22  # distances at a time
EXPORTED_BLOCK = 1024  # kernels that an exported graph compares with at a time


class KernelDensity(nn.Module):
    """A density fitted to rows of features; the anomaly score of others is their negative log-density."""

    mean: Tensor
    axes: Tensor
    points: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))  # (D,)
        self.register_buffer("axes", torch.empty(0, 0))  # (K, D), divided by the norm of the longest row
        self.register_buffer("points", torch.empty(0, 0))  # (N, K): the kernels' centres
        self.register_buffer("deviation", torch.empty(0))  # (K,): the kernels' standard deviations

    def fit(self, rows: Tensor, components: int) -> None:
        """Fit to rows (N, D) in at most ``components`` principal components. An earlier fit is forgotten."""
        learnt = pca(rows, most=components)
        count, dims = len(rows), len(learnt.axes)
        points = learnt.project(rows.cpu())  # (N, K)
        longest = points.norm(dim=1).max() if dims else torch.ones(())
        scott = count ** (-1 / (dims + 4))
        found = learnt.mean, learnt.axes / longest, points / longest, scott * learnt.variance.sqrt() / longest
        # principal components are uncorrelated, so the covariance of the kernels is diagonal
        self.mean, self.axes, self.points, self.deviation = (t.to(rows.device) for t in found)

    def negative_log_density(self, rows: Tensor) -> Tensor:
        """Return the negative log-density at rows (B, D): (B,).

        If all rows of the fit were equal, the kernel has width 1.
        """
        if not len(self.deviation):
            return (rows - self.mean).square().sum(1) / 2
        return -log_density((rows - self.mean) @ self.axes.T, self.points, self.deviation)


def log_density(place: Tensor, points: Tensor, deviation: Tensor) -> Tensor:
    """Return the log of the mean of Gaussian kernels at ``points`` (N, K), evaluated at ``place`` (B, K): (B,).

    The kernels have the standard deviations ``deviation`` (K,). The value is finite at any distance.
    """
    place, points = place / deviation, points / deviation
    kernels = []
    for part in row_chunks(place, max(1, CHUNK // len(points))):
        kernels.append(torch.logsumexp(-squared_distances(part, points, EXPORTED_BLOCK) / 2, dim=1))
    volume = deviation.log().sum() + len(deviation) / 2 * math.log(2 * math.pi)
    return torch.cat(kernels) - math.log(len(points)) - volume
