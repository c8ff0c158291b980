"""Fast point feature histograms: the geometry around each point of a cloud in 33 values, whatever its orientation.

Paper: Rusu et al., "Fast Point Feature Histograms (FPFH) for 3D Registration", ICRA 2009. As in Open3D, which BTF uses,
    a neighbourhood is the ``count`` nearest points within a radius, a pair starts at the point whose normal is closer
    to the line between both, neighbours are weighted by the inverse of the squared distance, and each histogram of the
    sum over neighbours is scaled to 100.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

BINS = 11  # of each of the three angles
PAIRS = 2**19  # computed at once: few enough for a processor's cache


def neighbours(points: Tensor, count: int, radius: float) -> tuple[Tensor, Tensor]:
    """Return indices (N, k) and distances (N, k) of the nearest points of each of N > 0 points (N, 3), itself first.

    k is ``count``, or fewer if there are fewer points. Where fewer lie within ``radius``, the distance is inf.
    """
    place = points.detach().cpu().double().numpy()
    tree = cKDTree(place, balanced_tree=False, compact_nodes=False)  # built four times as fast, as quick to search
    distance, index = tree.query(place, min(count, len(place)), distance_upper_bound=radius)
    distance, index = distance.reshape(len(place), -1), index.reshape(len(place), -1)
    away = index == len(place)
    own = np.arange(len(place))[:, None]
    index = np.where(away, own, index)
    swapped = np.argmax(index == own, axis=1)  # of two points in one place, the other may come first
    rows = np.arange(len(place))
    index[rows, swapped], index[:, 0] = index[:, 0].copy(), rows
    return torch.from_numpy(index).to(points.device), torch.from_numpy(distance).to(points.device, points.dtype)


def normals(points: Tensor, index: Tensor, distance: Tensor) -> Tensor:
    """Return unit normals (N, 3) that face the camera at the origin, by the covariance of each neighbourhood.

    ``index`` and ``distance`` are those of :func:`neighbours`. Fewer than three neighbours have the normal (0, 0, -1).
    """
    if points.device.type == "mps":  # which has no float64
        return normals(points.cpu(), index.cpu(), distance.cpu()).to(points.device)
    within = distance.isfinite()[..., None].double()
    total = within.sum(1)
    local = (points.double()[index] - points.double()[:, None]) * within  # small numbers, so that nothing is cancelled
    mean = local.sum(1) / total
    spread = torch.einsum("nki,nkj->nij", local, local) / total[..., None] - mean[:, :, None] * mean[:, None]
    found = torch.linalg.eigh(spread)[1][:, :, 0]
    facing = torch.where((found * points.double()).sum(1, keepdim=True) > 0, -found, found)
    alone = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64, device=points.device)
    return torch.where(total < 3, alone, facing).to(points.dtype)


def pair_features(offset: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (θ, α, φ) of pairs of points: θ in (-π, π], α and φ in [-1, 1], all (...).

    ``offset`` (..., 3) leads from the first point to the second; ``first`` and ``second`` (..., 3) are their normals.
    With u the normal of the source, v = d × u and w = u × v: φ = u·d, α = v·n, θ = atan2(w·n, u·n). All are 0 for
    points in one place, and where the line between them is along the normal.
    """
    length = offset.square().sum(-1).sqrt()
    line = offset / length.clamp_min(torch.finfo(offset.dtype).tiny)[..., None]
    one, two = (first * line).sum(-1), (second * line).sum(-1)
    swap = (one.abs() < two.abs())[..., None]
    source, target = torch.where(swap, second, first), torch.where(swap, first, second)
    line = torch.where(swap, -line, line)
    across = torch.linalg.cross(line, source)
    size = across.square().sum(-1).sqrt()
    degenerate = (length == 0) | (size == 0)
    across = across / size.clamp_min(torch.finfo(offset.dtype).tiny)[..., None]
    theta = torch.atan2((torch.linalg.cross(source, across) * target).sum(-1), (source * target).sum(-1))
    found = (theta, (across * target).sum(-1), torch.where(swap[..., 0], -two, one))
    return tuple(f.masked_fill(degenerate, 0) for f in found)  # type: ignore[return-value]


def simplified_histograms(points: Tensor, normal: Tensor, index: Tensor, distance: Tensor) -> Tensor:
    """Return SPFH (N, 33): histograms of θ, α and φ between each point and its neighbours, 100 in all each."""
    count = index.shape[1] - 1
    if count < 1:
        return points.new_zeros(len(points), 3 * BINS)
    parts = []
    for rows in torch.arange(len(points), device=points.device).split(max(1, PAIRS // count)):
        other, near = index[rows, 1:], distance[rows, 1:].isfinite().to(points.dtype)  # (n, k)
        offset = points[other] - points[rows][:, None]
        theta, alpha, phi = pair_features(offset, normal[rows][:, None].expand_as(offset), normal[other])
        shares = torch.stack([(theta + math.pi) / (2 * math.pi), (alpha + 1) / 2, (phi + 1) / 2], 2)  # (n, k, 3)
        bins = (shares * BINS).floor().clamp_(0, BINS - 1).long() + BINS * torch.arange(3, device=points.device)
        weight = 100 * near / near.sum(1, keepdim=True).clamp_min(1)
        found = points.new_zeros(len(rows), 3 * BINS)
        parts.append(found.scatter_add_(1, bins.flatten(1), weight[..., None].expand_as(bins).flatten(1)))
    return torch.cat(parts)


def fpfh(points: Tensor, normal: Tensor, index: Tensor, distance: Tensor) -> Tensor:
    """Return the histograms (N, 33): those of the point, and of its neighbours weighted by 1 / distance².

    Args:
        points: coordinates (N, 3)
        normal: unit normals (N, 3)
        index: neighbours of each point, itself first: (N, k)
        distance: their distances (N, k), inf for what is none
    """
    simple = simplified_histograms(points, normal, index, distance)
    near = distance[:, 1:].square()
    weight = torch.where((near > 0) & near.isfinite(), 1 / near, torch.zeros_like(near)).to(points.dtype)
    count = max(1, near.shape[1])
    around = [
        torch.einsum("nk,nkd->nd", weight[rows], simple[index[rows, 1:]])
        for rows in torch.arange(len(points), device=points.device).split(max(1, PAIRS // count // 4))
    ]
    total = torch.cat(around).view(len(points), 3, BINS)
    scale = total.sum(2, keepdim=True)
    return simple + torch.where(scale > 0, 100 * total / scale, total).flatten(1)
