"""The exact greedy k-centre coreset: always the point farthest from all chosen so far, found block by block.

Paper: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985; Johnson and Lindenstrauss, 1984.
Differs: the next centres are sought among the block of points farthest now. While the farthest of the block is not
    nearer than any point outside it was, no point outside can come first, for distances only fall; so the sequence is
    that of the plain loop, and one matrix product tells all points about a block's centres at once. Nor need a point
    hear of every centre: while it was nearer, when last asked, than the farthest now, it cannot come next. It is told
    all that it missed when the farthest has come down to it, and most never are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**22  # bytes of the largest temporary but the block's own table of distances
SEARCH = 256  # points that a block holds at least
CAUTION = 1.1  # how much faster the radius is taken to fall than it did


def greedy_coreset(
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
    if isinstance(start, Tensor):  # squared distance to the nearest centre, as last told; -1: is one
        near, done = start.to(points).square(), 0
    else:
        near, done = _squared(points, points[start]), 1
        near[start], chosen[0] = -1, start
    told = torch.full((size,), done, device=points.device)  # of how many centres
    width, radii = SEARCH, []
    while done < count:
        radii.append((done, float(near.max())))
        level = _level(radii, count)
        far = (near >= level).nonzero()[:, 0]
        late = far[told[far] < done]
        for before in told[late].unique().tolist():
            _approach(near, points, squares, late[told[late] == before], chosen[before:done])
        told[far] = done
        stage = min(count, max(SEARCH, 2 * done))
        while done < stage and len(far := far[near[far] >= level]):
            inside, bar, fence = _farthest(near[far], min(width, block), level)
            names = far[inside]
            picks = names[_sequence(points[names], near[names], inside, bar, fence, stage - done)]
            chosen[done : done + len(picks)] = picks
            done, width = done + len(picks), max(SEARCH, 8 * len(picks))  # few are found while there are few centres
            near[picks] = -1
            if done < count:
                _approach(near, points, squares, far, picks)
            told[far] = done
            if progress is not None:
                progress(done, count)
    return chosen


def distances_to(points: Tensor, centre: Tensor) -> Tensor:
    """Return how far (N,) all ``points`` (N, D) are from one ``centre`` (D,)."""
    return _squared(points, centre).sqrt_()


def _squared(points: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([(p - centre).square_().sum(1) for p in points.split(_rows(points.shape[1]))])


def _level(radii: list[tuple[int, float]], count: int) -> float:
    """Guess from (centres, squared radius) so far the squared radius after ``count`` centres, rather too small.

    It falls about like a power of their number. Points nearer than that need not be told of centres; if it falls
    further after all, they are, so a wrong guess costs time only.
    """
    done, radius = radii[-1]
    earlier = [pair for pair in radii if 0 < pair[0] < done]
    if earlier and 0 < radius < earlier[-1][1]:
        power = math.log(radius / earlier[-1][1]) / math.log(done / earlier[-1][0])
        return float(np.float32(radius * (count / done) ** (CAUTION * power)))  # compared with values of float32
    return 0.0


def _farthest(near: Tensor, count: int, level: float) -> tuple[Tensor, float, int]:
    """Return the ``count`` farthest points, indices rising, and which point outside comes first: distance and index.

    None of ``near`` (N,) lies below ``level``, and all others do.
    """
    if len(near) <= count:
        return torch.arange(len(near), device=near.device), level, count
    bar = near.topk(count + 1).values[-1]
    above, even = (near > bar).nonzero()[:, 0], (near == bar).nonzero()[:, 0]
    free = count - len(above)  # of those on the bar, the first in order come in
    return torch.cat([above, even[:free]]).sort().values, float(bar), int(even[free])


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


def _approach(near: Tensor, points: Tensor, squares: Tensor, names: Tensor, picks: Tensor) -> None:
    """Let the points ``names`` know the centres ``picks``: lower their ``near`` in place."""
    centres, norms = points[picks], squares[picks]
    for part in names.split(_rows(max(len(picks), points.shape[1]))):
        rows, old = points.index_select(0, part), near[part]
        table = torch.addmm(norms, rows, centres.T, alpha=-2)  # (n, m): squared distances less |x|²
        closer = (table.amin(1) + squares[part] < old).nonzero()[:, 0]  # measured by subtraction, free of cancellation
        if len(closer):
            least = (rows[closer] - centres[table[closer].argmin(1)]).square_().sum(1)
            near[part[closer]] = torch.minimum(old[closer], least)


def random_projection(points: Tensor, dim: int, generator: torch.Generator) -> Tensor:
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
