"""Exact nearest neighbours, of which only the distances that could matter are computed in full.

A distance never grows when it is measured along some orthogonal directions only, nor when all the others are replaced
by their length. So a bank keeps beside every point its shadow: the coordinates along the bank's principal directions
and the length of what is left. Distances between shadows are cheap and never above the true ones. The nearest shadow
gives a first true distance, and only points whose shadow is not farther than that are measured in full.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

CHUNK = 2**25  # bytes of the largest temporary
HEAD = 128  # coordinates of a shadow, at most
LEAST = 2048, 256  # points and dimensions from which shadows save time
BLOCK = 16  # points that share one minimum when shadows are compared
ROUNDING = torch.finfo(torch.float32).eps


def nearest(queries: Tensor, bank: Tensor | Bank, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the distances (Q, k), rising, and the indices (Q, k) of the points of ``bank`` nearest to each query.

    ``queries`` is (Q, D). A bank (M, D) that is asked more than a few times is worth wrapping in :class:`Bank`.
    """
    return (bank if isinstance(bank, Bank) else Bank(bank, head=0)).nearest(queries, k)


class Bank:
    """Points made ready for many queries. Everything kept follows from ``points`` (M, D), so only they need saving."""

    def __init__(self, points: Tensor, head: int | None = None) -> None:
        """Prepare ``points``, with shadows of ``head`` coordinates; 0: no shadows, None: what pays for this size."""
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(f"a bank is a table of points (M, D), not {tuple(points.shape)}")
        self.points = points.detach().float()
        self.centre = self.points.mean(0)
        size, dim = points.shape
        if head is None:
            pays = size >= LEAST[0] and dim >= LEAST[1] and points.device.type != "mps"  # which has no float64
            head = min(HEAD, dim // 3) if pays else 0
        self.shadows: Tensor | None = None
        if head:
            self.axes = _principal(self.centred, head)  # (D, head), float64
            shadow = torch.cat([self._shadow(part) for part in self.points.split(_rows(2 * dim))])  # (M, head + 1)
            self.reach = shadow.norm(dim=1).amax()  # from the centre to the farthest point
            padding = -size % BLOCK
            coordinates = torch.nn.functional.pad(-2 * shadow, (0, 0, 0, padding))
            squares = torch.nn.functional.pad(shadow.square().sum(1), (0, padding), value=torch.inf)
            self.shadows = torch.cat([coordinates, squares[:, None]], 1).float()  # (M + padding, head + 2)
            del self.centred

    def nearest(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the distances (Q, k), rising, and the indices (Q, k) of the ``k`` nearest points; see :func:`nearest`.

        Distances are float32 without cancellation: a query that is itself in the bank finds 0.
        """
        size, dim = self.points.shape
        if not 1 <= k <= size:
            raise ValueError(f"{k} neighbours were asked of a bank of {size} points")
        queries = queries.detach().float()
        distance = torch.empty(len(queries), k, device=queries.device)
        index = torch.empty(len(queries), k, device=queries.device, dtype=torch.long)
        pays = self.shadows is not None and len(self.shadows) >= 2 * k * BLOCK
        for part in torch.arange(len(queries), device=queries.device).split(_rows(max(size, 2 * dim))):
            if pays:
                found, *answer = self._by_shadow(queries[part], k)
                distance[part[found]], index[part[found]] = answer
                pays = 2 * int(found.sum()) >= len(part)  # in vain for most: not tried on the remaining queries
                part = part[~found]
            if len(part):
                distance[part], index[part] = self._by_all(queries[part], k)
        return distance, index

    @cached_property
    def centred(self) -> Tensor:
        """The points (M, D) around their mean, where squared norms cancel least."""
        return self.points - self.centre

    @cached_property
    def squares(self) -> Tensor:
        """Squared norms (M,) of the centred points."""
        return self.centred.square().sum(1)

    def _by_all(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Compare every query with every point: |c|² - 2xc orders them, then the winners are measured directly."""
        bound = torch.addmm(self.squares, queries - self.centre, self.centred.T, alpha=-2)  # (Q, M)
        index = bound.argmin(1, keepdim=True) if k == 1 else bound.topk(k, largest=False).indices.sort(1).values
        row = torch.arange(len(queries), device=queries.device).repeat_interleave(k)
        square, order = self._measured(queries, row, index.flatten()).view(-1, k).sort(dim=1, stable=True)
        return square.sqrt(), index.gather(1, order)

    def _by_shadow(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return which queries (Q,) shadows could settle, and their distances and indices; the others see too many."""
        assert self.shadows is not None
        shadow = self._shadow(queries)  # (Q, head + 1)
        ones = torch.ones_like(shadow[:, :1])
        bound = torch.cat([shadow, ones], 1).float() @ self.shadows.T  # (Q, M'): squared distance less |shadow|²
        least = bound.view(len(bound), BLOCK, -1).amin(1)  # (Q, G): block g holds the points g, g + G, g + 2G ...
        stride = torch.arange(BLOCK, device=bound.device) * least.shape[1]

        first = least.argmin(1, keepdim=True) if k == 1 else least.topk(k, largest=False).indices  # (Q, k)
        inside = bound.gather(1, (first[:, :, None] + stride).flatten(1)).view(*first.shape, BLOCK)
        first = first + stride[inside.argmin(2)]  # k different points with near shadows
        row = torch.arange(len(queries), device=bound.device).repeat_interleave(k)
        limit = self._measured(queries, row, first.flatten()).view(-1, k).amax(1)  # k points are not farther than this

        limit = (limit * (1 + queries.shape[1] * ROUNDING) + self._slack(shadow) - shadow.square().sum(1)).float()
        hit = least <= limit[:, None]
        few = hit.sum(1) <= len(self.points) // 128 + 4 * k  # where single distances cost less than all at once
        row, block = (hit & few[:, None]).nonzero(as_tuple=True)
        column = block[:, None] + stride  # (hits, BLOCK)
        survives = bound[row[:, None], column] <= limit[row, None]
        row, column = row[:, None].expand_as(column)[survives], column[survives]
        count = row.bincount(minlength=len(queries))
        found = few & (count >= k)  # too few only where something is not finite

        square = self._measured(queries, row, column)
        order = column.argsort()  # by row, then distance, then index
        order = order[square[order].argsort(stable=True)]
        order = order[row[order].argsort(stable=True)]
        best = (count.cumsum(0) - count)[found, None] + torch.arange(k, device=row.device)
        return found, square[order][best].sqrt(), column[order][best]

    def _shadow(self, points: Tensor) -> Tensor:
        """Return coordinates along the axes and the length of the rest, (N, head + 1), float64."""
        full = points.double() - self.centre.double()
        head = full @ self.axes
        rest = full.square().sum(1) - head.square().sum(1)
        return torch.cat([head, rest.clamp(min=0).sqrt()[:, None]], 1)

    def _slack(self, shadow: Tensor) -> Tensor:
        """Bound (Q,) the error of float32 shadow distances: a product of n terms in any order errs by n / 2 epsilon."""
        return (shadow.shape[1] + 32) * ROUNDING * (shadow.norm(dim=1) + self.reach).square()

    def _measured(self, queries: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the squared distances (P,) of the pairs ``queries[row]``, ``points[column]``, by subtraction."""
        step = max(1, CHUNK // 32 // (4 * queries.shape[1]))  # small enough to stay in a processor's cache
        pairs = zip(row.split(step), column.split(step), strict=True)
        parts = [queries.index_select(0, r).sub_(self.points.index_select(0, c)).square_().sum(1) for r, c in pairs]
        return torch.cat(parts)


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
