"""How rare a feature is: principal components of known ones, then a Gaussian kernel on each of them.

The kernels' covariance is that of the data times Scott's factor squared (Scott, "Multivariate Density Estimation",
1992). Everything is summed up in logarithms: far away, where the density itself is 0 in floating point, it still falls.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from iadbe.layers.statistics.pca import pca

CHUNK = 2**22  # distances at a time


class KernelDensity(nn.Module):
    """``fit`` to rows of features, then ask how rare others are."""

    mean: Tensor
    axes: Tensor
    points: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))  # (D,)
        self.register_buffer("axes", torch.empty(0, 0))  # (K, D), divided by the longest known vector
        self.register_buffer("points", torch.empty(0, 0))  # (N, K): the kernels' centres
        self.register_buffer("deviation", torch.empty(0))  # (K,): the kernels' standard deviations

    def fit(self, rows: Tensor, components: int) -> None:
        """Learn afresh from rows (N, D), in at most ``components`` principal components."""
        learnt = pca(rows, most=components)
        count, dims = len(rows), len(learnt.axes)
        points = learnt.project(rows.cpu())  # (N, K)
        longest = points.norm(dim=1).max() if dims else torch.ones(())
        scott = count ** (-1 / (dims + 4))
        found = learnt.mean, learnt.axes / longest, points / longest, scott * learnt.variance.sqrt() / longest
        # principal components are uncorrelated, so the covariance of the kernels is diagonal
        self.mean, self.axes, self.points, self.deviation = (t.to(rows.device) for t in found)

    def negative_log_density(self, rows: Tensor) -> Tensor:
        """Return the negative logarithm of the density at rows (B, D): (B,).

        Where all known rows were equal there is no spread to set a width by; the kernel then has width 1.
        """
        if not len(self.deviation):
            return (rows - self.mean).square().sum(1) / 2
        return -log_density((rows - self.mean) @ self.axes.T, self.points, self.deviation)


def log_density(place: Tensor, points: Tensor, deviation: Tensor) -> Tensor:
    """Return the log of the mean of Gaussian kernels at ``points`` (N, K), seen from ``place`` (B, K): (B,).

    The kernels have the standard deviations (K,). However far away, the value is finite and still falls.
    """
    place, points = place / deviation, points / deviation
    kernels = []
    for part in place.split(max(1, CHUNK // len(points))):
        steps = torch.cdist(part, points, compute_mode="donot_use_mm_for_euclid_dist")
        kernels.append(torch.logsumexp(-steps.square() / 2, dim=1))
    volume = deviation.log().sum() + len(deviation) / 2 * math.log(2 * math.pi)
    return torch.cat(kernels) - math.log(len(points)) - volume
