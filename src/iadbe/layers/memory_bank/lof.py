"""The local outlier factor (LOF): the density around a point's neighbours over the density around the point.

Paper: Breunig et al., "LOF: Identifying Density-Based Local Outliers", SIGMOD 2000.
Differs:
    * A point has exactly k neighbours, even where several are equally far.
    * Distances within rounding error are 0.
    * A density is finite where more than k points are equal, as in scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**24  # distances computed at a time
EPSILON = 1e-10  # is added to the mean reachability distance, so that equal points have a density


def local_outlier_factor(groups: Tensor, k: int) -> Tensor:
    """Return the factor (G, N) of each point within its group (G, N, D): about 1 within a cluster, more for outliers.

    With ``k`` or fewer points in a group, all others are neighbours. A single point has the factor 1.
    """
    count = groups.shape[1]
    k = min(k, count - 1)
    if k < 1:
        return groups.new_ones(groups.shape[:2])
    return torch.cat([_factor(part, k) for part in groups.split(max(1, CHUNK // count**2))])


def pairwise_distances(groups: Tensor) -> Tensor:
    """Return the Euclidean distances (G, N, N) within groups of points (G, N, D), in float64 except on mps."""
    points = groups if groups.device.type == "mps" else groups.double()
    points = points - points.mean(1, keepdim=True)
    norms = points.square().sum(2)
    squared = torch.baddbmm(norms[:, None], points, points.mT, alpha=-2).add_(norms[:, :, None])
    rounding = torch.finfo(points.dtype).eps * 64 * norms.amax(1)[:, None, None]
    return torch.where(squared > rounding, squared, 0).sqrt()


def _factor(groups: Tensor, k: int) -> Tensor:
    """Follow definitions 3 (k-distance), 5 (reachability distance), 6 (local reachability density) and 7 (LOF)."""
    distances = pairwise_distances(groups)
    distances.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # a point is not its own neighbour
    near, index = distances.topk(k, largest=False)  # (g, N, k)
    k_distance = near[:, :, -1]  # (g, N)
    index = index.flatten(1)
    reachability = torch.maximum(near, k_distance.gather(1, index).view_as(near))
    density = 1 / (reachability.mean(2) + EPSILON)
    return (density.gather(1, index).view_as(near).mean(2) / density).to(groups.dtype)
