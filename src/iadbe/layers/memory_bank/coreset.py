"""The greedy k-centre coreset: always the point farthest from all points chosen so far. Exact, and fast.

:func:`reference_coreset` is the plain algorithm in a few lines. :func:`greedy_coreset` returns the same sequence, which
the tests check, with far fewer distances:

* **Blocks.** The next centres are searched among the block of points that are farthest now. Distances to the nearest
  centre only fall. So while the farthest point of the block is at least as far as every point outside was, no point
  outside can come first, and the sequence within the block is that of the plain loop. One matrix product then updates
  all points with all centres of the block.
* **Lazy updates.** The distance kept for a point is an upper bound of the true one, as later centres only lower it. A
  point whose bound lies below the current radius cannot be the next centre, so it skips updates. It catches up when
  the radius falls to its bound, which for most points never happens.

Paper: Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985 (the algorithm); Sener and Savarese,
    "Active Learning for Convolutional Neural Networks: A Core-Set Approach", ICLR 2018, 1708.00489 (coresets); Johnson
    and Lindenstrauss, 1984 (random projection).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

CHUNK = 2**22  # bytes of the largest temporary, except the distances within a block
MIN_BLOCK = 256  # points
SAFETY = 1.1  # factor on the exponent with which the radius has fallen so far


def reference_coreset(points: Tensor, count: int, start: int = 0) -> Tensor:
    """Return the indices (count,) of the greedy sequence from ``points`` (N, D), by the definition, in float64."""
    points = points.double()
    squared, chosen = (points - points[start]).square().sum(1), [start]  # squared distances to the nearest centre
    while len(chosen) < count:
        squared[chosen[-1]] = -1  # a centre is not chosen again
        chosen.append(int(squared.argmax()))
        squared = torch.minimum(squared, (points - points[chosen[-1]]).square().sum(1))
    return torch.tensor(chosen)


def greedy_coreset(
    points: Tensor,
    count: int,
    *,
    start: int | Tensor = 0,
    block: int = 2048,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the indices (count,), all different, of the greedy sequence from ``points`` (N, D).

    Args:
        points: finite values; computed in float32
        count: from 1 to N
        start: index of the first point. Or distances (N,) to centres that are not among the points; then the farthest
            point comes first
        block: points of a block, at most. It changes the speed only, except for points whose distances differ by no
            more than the rounding of float32
        progress: is called with (chosen, count) after each block

    Raises:
        ValueError: for a count or a start that the points do not have, and for values that are not finite
    """
    _check(points, count, start)
    points = points.detach().float()
    points = points - points.mean(0)  # squared norms cancel least around the mean
    norms = torch.cat([p.square().sum(1) for p in points.split(_rows(points.shape[1]))])  # no second copy of all
    if not bool(norms.isfinite().all()):
        raise ValueError("a coreset cannot be chosen from points that are not finite")
    chosen = torch.zeros(count, dtype=torch.long, device=points.device)
    if isinstance(start, Tensor):
        bound, done = start.to(points).square(), 0
    else:
        bound, done = _squared(points, points[start]), 1
        bound[start], chosen[0] = -1, start
    # bound (N,): squared distance to the nearest of the first updated[i] centres; -1 for a centre
    updated = torch.full_like(bound, done, dtype=torch.long)
    width, radii = MIN_BLOCK, []
    while done < count:
        radii.append((done, float(bound.max())))
        threshold = _pruning_threshold(radii, count)
        candidates = (bound >= threshold).nonzero()[:, 0]
        stale = candidates[updated[candidates] < done]
        for before in updated[stale].unique().tolist():
            _update(bound, points, norms, stale[updated[stale] == before], chosen[before:done])
        updated[candidates] = done
        stage = min(count, max(MIN_BLOCK, 2 * done))
        while done < stage and len(candidates := candidates[bound[candidates] >= threshold]):
            inside, outside, first_outside = _farthest(bound[candidates], min(width, block), threshold)
            members = candidates[inside]
            picks = members[_sequence(points[members], bound[members], inside, outside, first_outside, stage - done)]
            chosen[done : done + len(picks)] = picks
            done, width = done + len(picks), max(MIN_BLOCK, 8 * len(picks))  # early blocks give few centres
            bound[picks] = -1
            if done < count:
                _update(bound, points, norms, candidates, picks)
            updated[candidates] = done
            if progress is not None:
                progress(done, count)
    return chosen


def _check(points: Tensor, count: int, start: int | Tensor) -> None:
    size = len(points)
    if points.ndim != 2 or not 1 <= count <= size:
        raise ValueError(f"a coreset of {count} cannot be chosen from points of shape {tuple(points.shape)}")
    if isinstance(start, int) and not 0 <= start < size:
        raise ValueError(f"a coreset cannot start at point {start} of {size}")


def distances_to(points: Tensor, centre: Tensor) -> Tensor:
    """Return the Euclidean distances (N,) of all ``points`` (N, D) to one ``centre`` (D,)."""
    return _squared(points, centre).sqrt_()


def _squared(points: Tensor, centre: Tensor) -> Tensor:
    return torch.cat([(p - centre).square_().sum(1) for p in points.split(_rows(points.shape[1]))])


def _pruning_threshold(radii: list[tuple[int, float]], count: int) -> float:
    """Estimate a lower bound of the squared radius after ``count`` centres from (centres, squared radius) so far.

    The radius falls about like a power of the number of centres. Points with a bound below the threshold skip updates.
    A wrong estimate only costs time: when no candidate is left, the threshold is estimated again.
    """
    done, radius = radii[-1]
    earlier = [pair for pair in radii if 0 < pair[0] < done]
    if earlier and 0 < radius < earlier[-1][1]:
        power = math.log(radius / earlier[-1][1]) / math.log(done / earlier[-1][0])
        return float(np.float32(radius * (count / done) ** (SAFETY * power)))  # is compared with float32
    return 0.0


def _farthest(bound: Tensor, count: int, threshold: float) -> tuple[Tensor, float, int]:
    """Return the indices (rising) of the ``count`` farthest candidates, and the distance and index of the first other.

    All of ``bound`` (N,) are at least ``threshold``, and all points that are no candidates lie below it.
    """
    if len(bound) <= count:
        return torch.arange(len(bound), device=bound.device), threshold, count
    limit = bound.topk(count + 1).values[-1]
    above, equal = (bound > limit).nonzero()[:, 0], (bound == limit).nonzero()[:, 0]
    free = count - len(above)  # of those at the limit, the first in order belong to the block
    return torch.cat([above, equal[:free]]).sort().values, float(limit), int(equal[free])


def _sequence(block: Tensor, bound: Tensor, index: Tensor, outside: float, first_outside: int, most: int) -> Tensor:
    """Run the plain loop within the block (m, D) until a point outside could come first; return places in the block.

    Among equal distances the lowest index comes first, as in the plain loop.
    """
    block = block if block.device.type == "mps" else block.double()  # mps has no float64
    norms = block.square().sum(1)
    squared = torch.addmm(norms, block, block.T, alpha=-2).add_(norms[:, None]).clamp_(min=0).cpu().numpy()
    left, indices = bound.to(block.dtype).cpu().numpy(), index.cpu().numpy()
    picks: list[int] = []
    while len(picks) < min(most, len(left)):
        farthest = int(left.argmax())  # the first of several
        radius = left[farthest]
        if radius < outside or (radius == outside and indices[farthest] > first_outside):
            break
        picks.append(farthest)
        np.minimum(left, squared[farthest], out=left)
        left[farthest] = -1
    return torch.tensor(picks, device=index.device)


def _update(bound: Tensor, points: Tensor, norms: Tensor, index: Tensor, picks: Tensor) -> None:
    """Lower ``bound`` of the points ``index``, in place, to their squared distances to the centres ``picks``."""
    centres, offsets = points[picks], norms[picks]
    for part in index.split(_rows(max(len(picks), points.shape[1]))):
        rows, old = points.index_select(0, part), bound[part]
        table = torch.addmm(offsets, rows, centres.T, alpha=-2)  # (n, m): squared distances less |x|²
        closer = (table.amin(1) + norms[part] < old).nonzero()[:, 0]  # these are measured without cancellation
        if len(closer):
            least = (rows[closer] - centres[table[closer].argmin(1)]).square_().sum(1)
            bound[part[closer]] = torch.minimum(old[closer], least)


def random_projection(points: Tensor, dim: int, generator: torch.Generator) -> Tensor:
    """Return ``points`` (N, D) in ``dim`` random Gaussian directions, (N, dim); squared distances stay on average.

    ``generator`` is on the CPU, so that every device gets the same directions. Where ``dim`` is D or more, the points
    stay as they are.
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
    """Return how many random directions keep all squared distances of ``size`` points within a factor 1 ± ``eps``."""
    if size < 1 or not 0 < eps < 1:
        raise ValueError(f"dimensions are known for 1 or more points and eps between 0 and 1, not {size} and {eps}")
    return int(4 * math.log(size) / (eps**2 / 2 - eps**3 / 3))


def _rows(width: int) -> int:
    return max(1, CHUNK // (4 * width))
