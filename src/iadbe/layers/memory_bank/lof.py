"""The local outlier factor: how much thinner points lie around a point than around its neighbours.

Paper: Breunig et al., "LOF: Identifying Density-Based Local Outliers", SIGMOD 2000.
Differs: a point has exactly k neighbours even where several lie equally far. Distances that rounding could have made
    count as 0, and a density is finite where more than k points are equal, as in scikit-learn.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**24  # distances worked on at a time
LEAST = 1e-10  # added to the mean distance of neighbours, so that equal points have a density


def local_outlier_factor(groups: Tensor, k: int) -> Tensor:
    """Return the factor (G, N) of each point among those of its group (G, N, D); about 1 within a cluster.

    With fewer than ``k`` other points, all others are neighbours; a point that is alone has the factor 1.
    """
    count = groups.shape[1]
    k = min(k, count - 1)
    if k < 1:
        return groups.new_ones(groups.shape[:2])
    return torch.cat([_factor(part, k) for part in groups.split(max(1, CHUNK // count**2))])


def pairwise_distances(groups: Tensor) -> Tensor:
    """Return the distances (G, N, N) within groups of points (G, N, D), in double precision where there is one."""
    points = groups if groups.device.type == "mps" else groups.double()
    points = points - points.mean(1, keepdim=True)
    squares = points.square().sum(2)
    table = torch.baddbmm(squares[:, None], points, points.mT, alpha=-2).add_(squares[:, :, None])
    noise = torch.finfo(points.dtype).eps * 64 * squares.amax(1)[:, None, None]
    return torch.where(table > noise, table, 0).sqrt()


def _factor(groups: Tensor, k: int) -> Tensor:
    apart = pairwise_distances(groups)
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # nobody is a neighbour of himself
    near, names = apart.topk(k, largest=False)  # (g, N, k)
    reach = near[:, :, -1]  # (g, N): how far a point's neighbourhood goes
    there = names.flatten(1)
    reached = torch.maximum(near, reach.gather(1, there).view_as(near))
    density = 1 / (reached.mean(2) + LEAST)
    return (density.gather(1, there).view_as(near).mean(2) / density).to(groups.dtype)
