"""The exact greedy k-centre coreset: always the point farthest from all chosen so far, found block by block.

Paper: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; Johnson and Lindenstrauss, 1984.
Differs: the next centres are sought among the block of points farthest now. While the farthest of the block is not
    nearer than any point outside it was, no point outside can come first, for distances only fall; so the sequence is
    that of the plain loop, and one matrix product tells all points about a block's centres at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**25  # bytes of the largest temporary but the block's own table of distances
SEARCH = 256  # points that a block holds at least


def greedy(
    points: Tensor,
    count: int,
    *,
    start: int | Tensor = 0,
    block: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the indices (count,), all different, that the greedy sequence takes from ``points`` (N, D).

    ``start`` comes first; in its place may stand distances (N,), as if centres lay so far away that are not taken
    themselves: then the farthest point comes first. ``block`` (the most points of a block) changes the speed only, but
    for points whose distances differ by no more than float32's rounding. ``progress`` is called with (chosen, count)
    after each block.
    """
    size = len(points)
    if points.ndim != 2 or not 1 <= count <= size:
        raise ValueError(f"a coreset of {count} cannot be chosen from points of shape {tuple(points.shape)}")
    if isinstance(start, int) and not 0 <= start < size:
        raise ValueError(f"a coreset cannot start at point {start} of {size}")
    points = points.detach().float()
    points = points - points.mean(0)  # squared norms cancel least around the mean
    squares = points.square().sum(1)
    if not bool(squares.isfinite().all()):
        raise ValueError("a coreset cannot be chosen from points that are not finite")
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    if isinstance(start, Tensor):  # squared distance to the nearest centre; -1: is one
        near, done = start.to(points).square(), 0
    else:
        near, done = _squared(points, points[start]), 1
        near[start], chosen[0] = -1, start
    width = SEARCH
    while done < count:
        inside, bar, fence = _farthest(near, min(width, block, size - done))
        picks = inside[_sequence(points[inside], near[inside], inside, bar, fence, count - done)]
        chosen[done : done + len(picks)] = picks
        done, width = done + len(picks), max(SEARCH, 8 * len(picks))  # few are found while there are few centres
        if done < count:
            _approach(near, points, squares, picks)
        if progress is not None:
            progress(done, count)
    return chosen


def distances(points: Tensor, centre: Tensor) -> Tensor:
    """Return how far (N,) all ``points`` (N, D) are from one ``centre`` (D,)."""
    return _squared(points, centre).sqrt_()


def _squared(points: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([(p - centre).square_().sum(1) for p in points.split(_rows(points.shape[1]))])


def _farthest(near: Tensor, count: int) -> tuple[Tensor, float, int]:
    """Return the ``count`` farthest points, indices rising, and which point outside comes first: distance and index."""
    outside = int((near >= 0).sum()) - count
    if not outside:
        return (near >= 0).nonzero()[:, 0], -math.inf, 0
    bar = near.topk(count + 1).values[-1]
    above, level = (near > bar).nonzero()[:, 0], (near == bar).nonzero()[:, 0]
    free = count - len(above)  # of those on the bar, the first in order come in
    return torch.cat([above, level[:free]]).sort().values, float(bar), int(level[free])


def _sequence(block: Tensor, near: Tensor, index: Tensor, bar: float, fence: int, most: int) -> Tensor:
    """Pick greedily within the block (m, D) until a point outside could come first; return places in the block."""
    block = block if block.device.type == "mps" else block.double()  # mps has no float64
    squares = block.square().sum(1)
    apart = torch.addmm(squares, block, block.T, alpha=-2).add_(squares[:, None]).clamp_(min=0).cpu().numpy()
    left, names = near.to(block.dtype).cpu().numpy(), index.cpu().numpy()
    picks: list[int] = []
    while len(picks) < min(most, len(left)):
        farthest = int(left.argmax())  # the first, if several
        value = left[farthest]
        if value < bar or (value == bar and names[farthest] > fence):
            break
        picks.append(farthest)
        np.minimum(left, apart[farthest], out=left)
        left[farthest] = -1
    return torch.tensor(picks, device=index.device)


def _approach(near: Tensor, points: Tensor, squares: Tensor, picks: Tensor) -> None:
    """Let all points know the new centres: lower ``near`` (N,) in place."""
    centres, norms = points[picks], squares[picks]
    step = _rows(max(len(picks), points.shape[1]))
    for old, part, square in zip(near.split(step), points.split(step), squares.split(step), strict=True):
        table = torch.addmm(norms, part, centres.T, alpha=-2)  # (n, m): squared distances less |x|²
        closer = (table.amin(1) + square < old).nonzero()[:, 0]  # measured by subtraction, free of cancellation
        if len(closer):
            least = (part[closer] - centres[table[closer].argmin(1)]).square_().sum(1)
            old[closer] = torch.minimum(old[closer], least)
    near[picks] = -1


def project(points: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Return ``points`` (N, D) in ``dim`` random Gaussian directions, (N, dim), distances kept in the mean.

    ``generator`` is one of the CPU, so that every device gets the same directions. No fewer dimensions, no change.
    """
    if dim < 1:
        raise ValueError(f"points cannot be projected to {dim} dimensions")
    if dim >= points.shape[1]:
        return points
    matrix = (torch.randn(points.shape[1], dim, generator=generator) / math.sqrt(dim)).to(points.device)
    result = torch.empty(len(points), dim, device=points.device)
    for target, part in zip(*(t.split(_rows(points.shape[1])) for t in (result, points)), strict=True):
        torch.mm(part.float(), matrix, out=target)
    return result


def johnson_lindenstrauss_dim(size: int, eps: float = 0.9) -> int:
    """Return how many random directions keep all squared distances of ``size`` points within a factor 1 ± eps."""
    if size < 1 or not 0 < eps < 1:
        raise ValueError(f"dimensions are known for 1 or more points and eps between 0 and 1, not {size} and {eps}")
    return int(4 * math.log(size) / (eps**2 / 2 - eps**3 / 3))


def _rows(width: int) -> int:
    return max(1, CHUNK // (4 * width))
