"""Exact nearest neighbours, of which only the distances that could matter are computed in full.

A distance never grows when it is measured along some orthogonal directions only, nor when all the others are replaced
by their length. So a large bank keeps beside every point its shadow: the coordinates along the bank's principal
directions and the length of what is left. Distances between shadows are cheap and never above the true ones. The
nearest shadow gives a first true distance, and only points whose shadow is not farther than that are measured in full.
Where shadows are too many or would not pay, the points themselves are compared in the same way: |c|² - 2xc, for all
pairs at once, is a bound up to rounding, and what rounding leaves open is measured by subtraction.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

CHUNK = 2**25  # bytes of the largest temporary
HEAD = 128  # coordinates of a shadow, at most
LEAST = 3_000_000, 256  # values in a bank, and dimensions, from which shadows save time
PROBE = 128  # queries on which shadows are tried before the rest
SINGLE = 128  # a distance measured by subtraction takes as long as so many bounds
BLOCK = 16  # points that share one minimum when bounds are compared
ROUNDING = torch.finfo(torch.float32).eps


def nearest_neighbours(queries: Tensor, bank: Tensor | NeighbourIndex, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the distances (Q, k), rising, and the indices (Q, k) of the points of ``bank`` nearest to each query.

    ``queries`` is (Q, D). For more than a few calls on the same bank (M, D), make a :class:`NeighbourIndex` once.
    """
    return (bank if isinstance(bank, NeighbourIndex) else NeighbourIndex(bank, head=0)).nearest(queries, k)


class NeighbourIndex:
    """Points made ready for many queries. Everything kept follows from ``points`` (M, D), so only they need saving."""

    def __init__(self, points: Tensor, head: int | None = None) -> None:
        """Prepare ``points``, with shadows of ``head`` coordinates; 0: no shadows, None: what pays for this size."""
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(f"a bank is a table of points (M, D), not {tuple(points.shape)}")
        self.points = points.detach().float()
        self.centre = self.points.mean(0)  # around which squared norms cancel least
        size, dim = points.shape
        if head is None:
            pays = size * dim >= LEAST[0] and dim >= LEAST[1] and points.device.type != "mps"  # which has no float64
            head = min(HEAD, dim // 3) if pays else 0
        self.shadows: Tensor | None = None  # (M', head + 2)
        if head:
            self.axes = _principal(self.points - self.centre, head)  # (D, head), float64
            self.shadows = _table(torch.cat([self._shadow(p) for p in self.points.split(_rows(2 * dim))]))

    def nearest(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the distances (Q, k), rising, and the indices (Q, k) of the ``k`` nearest points to ``queries``.

        Distances are float32 without cancellation: a query that is itself in the bank finds 0.
        """
        size, dim = self.points.shape
        if not 1 <= k <= size:
            raise ValueError(f"{k} neighbours were asked of a bank of {size} points")
        queries = queries.detach().float()
        distance = torch.empty(len(queries), k, device=queries.device)
        index = torch.empty(len(queries), k, device=queries.device, dtype=torch.long)
        pays = self.shadows is not None and torch.get_float32_matmul_precision() == "highest"
        rows, step = torch.arange(len(queries), device=queries.device), _rows(max(size, k * dim))
        for part in (*rows[:PROBE].split(step), *rows[PROBE:].split(step)):
            if pays and self.shadows is not None and len(part):
                shadow = self._shadow(queries[part])
                found, *answer, singly = self._settled(queries[part], shadow, _bounds(shadow, self.shadows), k)
                distance[part[found]], index[part[found]] = answer
                cost, part = singly * SINGLE + int((~found).sum()) * size, part[~found]
                pays = 2 * cost < len(found) * size  # if not, they are not tried on the remaining queries
            if len(part):
                distance[part], index[part] = self._whole(queries[part], k)
        return distance, index

    def _whole(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Compare every query with every point."""
        centred = queries - self.centre
        bound = _bounds(centred, self.table)  # (Q, M')
        found, distance, index, _ = self._settled(queries, centred, bound, k, tight=True)
        if bool(found.all()):
            return distance, index
        best = bound.topk(k, largest=False).indices.sort(1).values  # rounding decides among more than can be measured
        row = torch.arange(len(queries), device=queries.device).repeat_interleave(k)
        square, order = self._measured(queries, row, best.flatten()).view(-1, k).sort(dim=1, stable=True)
        every, names = square.sqrt(), best.gather(1, order)
        every[found], names[found] = distance, index
        return every, names

    def _settled(
        self, queries: Tensor, shadow: Tensor, bound: Tensor, k: int, tight: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Return which queries (Q,) have few points within bounds, their distances and indices, and how many points.

        The bounds (Q, M') were made from ``shadow`` (Q, n); ``tight``: they are the distances, but for rounding.
        """
        least = bound.view(len(bound), BLOCK, -1).amin(1)  # (Q, G): block g holds the points g, g + G, g + 2G ...
        stride = torch.arange(BLOCK, device=bound.device) * least.shape[1]
        near = least.topk(min(k, least.shape[1]), largest=False).indices if k > 1 else least.argmin(1, keepdim=True)
        inside = bound.gather(1, (near[:, :, None] + stride).flatten(1)).view(*near.shape, BLOCK)
        if tight:
            limit = inside.amin(2).amax(1) + 2 * self._slack(shadow)
        else:  # as far as k different points with near shadows
            near = near + stride[inside.argmin(2)]
            row = torch.arange(len(queries), device=bound.device).repeat_interleave(near.shape[1])
            limit = self._measured(queries, row, near.flatten()).view(near.shape).amax(1)
            limit = limit * (1 + queries.shape[1] * ROUNDING) + self._slack(shadow) - shadow.square().sum(1)
            limit = limit.float()
        hit = least <= limit[:, None]
        few = hit.sum(1) <= len(self.points) // SINGLE + 2 * k + 2  # else comparing with all points costs less
        row, block = (hit & few[:, None]).nonzero(as_tuple=True)
        column = block[:, None] + stride  # (hits, BLOCK)
        survives = bound[row[:, None], column] <= limit[row, None]
        row, column = row[:, None].expand_as(column)[survives], column[survives]
        count = row.bincount(minlength=len(queries))
        found = few & (count >= k) & (near.shape[1] == k)  # fewer where something is not finite

        square = self._measured(queries, row, column)
        order = column.argsort()  # by row, then distance, then index
        order = order[square[order].argsort(stable=True)]
        order = order[row[order].argsort(stable=True)]
        best = (count.cumsum(0) - count)[found, None] + torch.arange(k, device=row.device)
        return found, square[order][best].sqrt(), column[order][best], len(row)

    @cached_property
    def table(self) -> Tensor:
        """The points themselves, ready for bounds: (M', D + 1)."""
        return _table(self.points - self.centre)

    @cached_property
    def reach(self) -> Tensor:
        """The distance () from the centre to the farthest point."""
        squares = [(p - self.centre).square_().sum(1).amax() for p in self.points.split(_rows(self.points.shape[1]))]
        return torch.stack(squares).amax().sqrt()

    def _shadow(self, points: Tensor) -> Tensor:
        """Return coordinates along the axes and the length of the rest, (N, head + 1), float64."""
        full = points.double() - self.centre.double()
        head = full @ self.axes
        rest = full.square().sum(1) - head.square().sum(1)
        return torch.cat([head, rest.clamp(min=0).sqrt()[:, None]], 1)

    def _slack(self, shadow: Tensor) -> Tensor:
        """Bound the rounding (Q,) of all bounds made from ``shadow`` (Q, n), whatever the order of summation."""
        return (shadow.shape[1] + 32) * ROUNDING * (shadow.norm(dim=1) + self.reach).square()

    def _measured(self, queries: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the squared distances (P,) of the pairs ``queries[row]``, ``points[column]``, by subtraction."""
        step = max(1, CHUNK // 32 // (4 * queries.shape[1]))  # small enough to stay in a processor's cache
        pairs = zip(row.split(step), column.split(step), strict=True)
        parts = [queries.index_select(0, r).sub_(self.points.index_select(0, c)).square_().sum(1) for r, c in pairs]
        return torch.cat(parts)


class CachedIndex:
    """Makes a table of points ready when it is first asked, and again when another stands in its place."""

    def __init__(self) -> None:
        self._bank: NeighbourIndex | None = None

    def __call__(self, points: Tensor) -> NeighbourIndex:
        """Return the points (M, D), ready for queries."""
        if self._bank is None or self._bank.points.data_ptr() != points.data_ptr():
            self._bank = NeighbourIndex(points)
        return self._bank


def _table(points: Tensor) -> Tensor:
    """Return [-2c, |c|²] of ``points`` (M, n), (M', n + 1), float32; M' fills blocks with infinitely far rows."""
    padding = -len(points) % BLOCK
    table = torch.empty(len(points) + padding, points.shape[1] + 1, device=points.device)
    table[: len(points), :-1] = -2 * points
    table[: len(points), -1] = points.square().sum(1)
    table[len(points) :, :-1], table[len(points) :, -1] = 0, torch.inf
    return table


def _bounds(points: Tensor, table: Tensor) -> Tensor:
    """Return squared distances less |x|² of ``points`` (Q, n) to all rows of the table, (Q, M')."""
    return torch.cat([points, torch.ones_like(points[:, :1])], 1).float() @ table.T


def _principal(points: Tensor, count: int, rounds: int = 2) -> Tensor:
    """Return orthonormal directions (D, count), float64, that nearly span the greatest variance of centred ``points``.

    Subspace iteration from points spread over the table. How well they fit decides the speed, never a result.
    """
    spread = torch.linspace(0, len(points) - 1, count, device=points.device).long()
    basis = points[spread].T
    for _ in range(rounds):
        basis = torch.linalg.qr(points.T @ (points @ basis))[0]
    return torch.linalg.qr(basis.double())[0]


def _rows(width: int) -> int:
    return max(1, CHUNK // (4 * width))
