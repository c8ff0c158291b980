"""k-means: the centres of clusters, found by Lloyd's rounds from a spread start.

Paper: Lloyd, "Least squares quantization in PCM", 1982; Arthur and Vassilvitskii, "k-means++", SODA 2007.
Differs: a cluster that has lost all its points starts again at the point that lies farthest from its centre.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 2**23  # numbers of the largest temporary


def kmeans(
    points: Tensor,
    count: int,
    generator: torch.Generator,
    rounds: int = 100,
    tries: int = 1,
    tolerance: float = 1e-4,
) -> Tensor:
    """Return ``count`` centres (K, D) of points (N, D); all points where they are no more than that.

    Of ``tries`` starts the one counts that ends with the least sum of squares. Rounds end where that falls by less than
    ``tolerance``, as a share, in one. ``generator`` is one of the CPU.
    """
    if count < 1 or tries < 1 or points.ndim != 2 or not len(points):
        raise ValueError(f"{count} centres cannot be found of points of shape {tuple(points.shape)}")
    points = points.detach().float()
    if count >= len(points):
        return points.clone()
    middle = points.mean(0)  # around which squared norms cancel least
    points = points - middle
    found = [_once(points, count, generator, rounds, tolerance) for _ in range(tries)]
    return min(found, key=lambda pair: pair[1])[0] + middle


def assign(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """Return which centre (K, D) is nearest to each point (N, D), (N,), and the squared distance to it, (N,)."""
    lengths = centres.square().sum(1)
    names, squares = [], []
    for part in points.split(max(1, CHUNK // max(centres.shape))):
        least = torch.addmm(lengths, part, centres.T, alpha=-2).min(1)
        names.append(least.indices)
        squares.append((part - centres[least.indices]).square().sum(1))
    return torch.cat(names), torch.cat(squares)


def _once(
    points: Tensor, count: int, generator: torch.Generator, rounds: int, tolerance: float
) -> tuple[Tensor, float]:
    """Return centres and their sum of squares."""
    centres = _start(points, count, generator)
    names, squares = assign(points, centres)
    total = squares.mean()
    for _ in range(rounds):
        sums = torch.zeros_like(centres, dtype=torch.float64 if centres.device.type != "mps" else None)
        sums.index_add_(0, names, points.to(sums.dtype))
        sizes = names.bincount(minlength=count)
        centres = (sums / sizes.clamp(min=1)[:, None]).to(points.dtype)
        empty = (sizes == 0).nonzero()[:, 0]
        if len(empty):
            centres[empty] = points[squares.topk(len(empty)).indices]
        before, (names, squares) = (names, total), assign(points, centres)
        total = squares.mean()
        if torch.equal(names, before[0]) or (not len(empty) and before[1] - total < tolerance * total):
            break
    return centres, float(squares.double().sum().cpu()) if squares.device.type != "mps" else float(squares.sum())


def _start(points: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw points as centres, each with a chance in proportion to its squared distance from those before."""
    chosen = [int(torch.randint(len(points), (), generator=generator))]
    near = (points - points[chosen[0]]).square().sum(1)
    for _ in range(count - 1):
        ladder = near.cpu().double().cumsum(0)
        target = torch.rand((), generator=generator, dtype=torch.float64) * ladder[-1]
        chosen.append(min(int(torch.searchsorted(ladder, target, right=True)), len(points) - 1))
        near = torch.minimum(near, (points - points[chosen[-1]]).square().sum(1))
    return points[torch.tensor(chosen, device=points.device)]
