"""k-means clustering: Lloyd's algorithm from a k-means++ start.

Paper: Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++: The Advantages of Careful
    Seeding", SODA 2007.
Differs:
    * A cluster that has lost all its points starts again at the point that is farthest from its centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iadbe.layers.features.row_chunks import row_chunks

CHUNK = 2**23  # numbers of the largest temporary


def kmeans(
    points: Tensor,
    count: int,
    generator: torch.Generator,
    max_iter: int = 100,
    n_init: int = 1,
    tol: float = 1e-4,
) -> Tensor:
    """Return ``count`` centres (K, D) of points (N, D); all points if there are no more than that.

    Args:
        points: computed in float32
        count: number of clusters, at least 1
        generator: on the CPU
        max_iter: iterations of one run, at most
        n_init: runs from different starts; the one with the smallest sum of squares counts
        tol: a run ends when the sum of squares falls by less than this share in one iteration
    """
    if count < 1 or n_init < 1 or points.ndim != 2 or not len(points):
        raise ValueError(f"{count} centres cannot be found of points of shape {tuple(points.shape)}")
    points = points.detach().float()
    if count >= len(points):
        return points.clone()
    mean = points.mean(0)  # around which squared norms cancel least
    points = points - mean
    found = [_lloyd(points, count, generator, max_iter, tol) for _ in range(n_init)]
    return min(found, key=lambda pair: pair[1])[0] + mean


def assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return for each point (N, D) the index of its nearest centre (K, D) and the squared distance, (N,) each."""
    norms = centres.square().sum(1)
    labels, squared = [], []
    for part in row_chunks(points, max(1, CHUNK // max(centres.shape))):
        nearest = torch.addmm(norms, part, centres.T, alpha=-2).min(1).indices
        labels.append(nearest)
        squared.append((part - centres[nearest]).square().sum(1))
    return torch.cat(labels), torch.cat(squared)


def _lloyd(points: Tensor, count: int, generator: torch.Generator, max_iter: int, tol: float) -> tuple[Tensor, float]:
    """Return the centres of one run and their sum of squares."""
    centres = _kmeans_plus_plus(points, count, generator)
    labels, squared = assign(points, centres)
    inertia = squared.mean()
    for _ in range(max_iter):
        sums = torch.zeros_like(centres, dtype=torch.float64 if centres.device.type != "mps" else None)
        sums.index_add_(0, labels, points.to(sums.dtype))
        sizes = labels.bincount(minlength=count)
        centres = (sums / sizes.clamp(min=1)[:, None]).to(points.dtype)
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = points[squared.topk(len(empty)).indices]
        labels_before, inertia_before = labels, inertia
        labels, squared = assign(points, centres)
        inertia = squared.mean()
        converged = not len(empty) and inertia_before - inertia < tol * inertia
        if torch.equal(labels, labels_before) or converged:
            break
    return centres, float(squared.double().sum().cpu()) if squared.device.type != "mps" else float(squared.sum())


def _kmeans_plus_plus(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw points as centres, each with a probability in proportion to its squared distance from those before."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    squared = (points - points[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        cumulative = squared.cpu().double().cumsum(0)
        target = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        chosen.append(min(int(torch.searchsorted(cumulative, target, right=True)), len(points) - 1))
        squared = torch.minimum(squared, (points - points[chosen[-1]]).square().sum(1))
    return points[torch.tensor(chosen, device=points.device)]
