"""Exact nearest neighbours by Euclidean distance, where few distances are computed in full.

:func:`reference_neighbours` is the plain algorithm: all distances, then the ``k`` smallest of each row.
:class:`NeighbourIndex` returns the same neighbours by filter and refine:

* **Lower bounds.** A large bank keeps a reduced copy of every point: its coordinates along the bank's principal
  components and the norm of the residual. The distance between two reduced points never exceeds that of the points,
  because an orthogonal projection shortens and norms obey the triangle inequality. It costs far less.
* **Refinement.** The ``k`` points with the smallest lower bounds are measured in full. No point whose lower bound
  exceeds the largest of these distances can be among the ``k`` nearest; only the others are measured in full.
* **Fallback.** For small banks, or where too many points remain, the bound is |c|² - 2xc for all pairs at once: exact
  up to rounding. What the rounding leaves open is measured by subtraction.

Bounds are widened by the rounding error of their computation, so the result does not depend on it.
"""

from __future__ import annotations

from functools import cached_property, reduce

import torch
from torch import Tensor

CHUNK = 2**25  # bytes of the largest temporary
EXPORTED_BLOCK = 4096  # points that an exported graph compares at a time
COLUMNS, COLUMN_PARTS = 256, 4  # points of one product of an exported graph, at least; parts of a block
ALIGNED = 16  # floats of the widest vector registers
MOST_BLOCKS = 32  # into which an exported graph cuts a bank, to find the one nearest neighbour
COMPONENTS = 128  # of a reduced point, at most
MIN_VALUES, MIN_DIMS = 3_000_000, 256  # values in a bank, and dimensions, from which reduced points save time
TRIAL = 128  # queries on which reduced points are tried before the rest
SINGLE_COST = 128  # a distance measured by subtraction takes as long as so many lower bounds
BLOCK = 16  # points that share one minimum when bounds are compared
ROUNDING = torch.finfo(torch.float32).eps


def reference_neighbours(queries: Tensor, points: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return distances (Q, k), rising, and indices (Q, k) of the ``k`` nearest points by the definition, in float64."""
    distances = torch.cdist(queries.double(), points.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = distances.topk(k, largest=False, sorted=True)
    return found.values, found.indices


def nearest_neighbours(queries: Tensor, bank: Tensor | NeighbourIndex, k: int = 1) -> tuple[Tensor, Tensor]:
    """Return the distances (Q, k), rising, and the indices (Q, k) of the points of ``bank`` nearest to each query.

    ``queries`` is (Q, D). For more than a few calls on the same bank (M, D), make a :class:`NeighbourIndex` once.
    """
    return (bank if isinstance(bank, NeighbourIndex) else NeighbourIndex(bank, components=0)).nearest(queries, k)


def squared_distances(rows: Tensor, points: Tensor, block: int) -> Tensor:
    """Return the squared distances (Q, M) of rows (Q, D) from points (M, D), by subtraction.

    An exported graph, for which ONNX has no such operation, compares with ``block`` points at a time.
    """
    if not torch.compiler.is_exporting():
        return torch.cdist(rows, points, compute_mode="donot_use_mm_for_euclid_dist").square()
    return torch.cat([(rows[:, None] - part).square().sum(2) for part in points.split(block)], 1)


class NeighbourIndex:
    """Points prepared for many queries. Everything kept follows from ``points`` (M, D), so only they need saving."""

    def __init__(self, points: Tensor, components: int | None = None) -> None:
        """Prepare ``points`` (M, D).

        Args:
            points: are not copied if they are float32
            components: of the reduced points; 0: no reduced points; None: as many as save time for this size
        """
        if points.ndim != 2 or 0 in points.shape:
            raise ValueError(f"a bank is a table of points (M, D), not {tuple(points.shape)}")
        self.points = points.detach().float()
        self.centre = self.points.mean(0)  # around which squared norms cancel least
        size, dim = points.shape
        if components is None:
            large = size * dim >= MIN_VALUES and dim >= MIN_DIMS and points.device.type != "mps"  # has no float64
            components = min(COMPONENTS, dim // 3) if large else 0
        self.reduced: Tensor | None = None  # (M', components + 2)
        if components:
            self.axes = _principal_axes(self.points - self.centre, components)  # (D, components), float64
            self.reduced = _table(torch.cat([self._reduce(p) for p in self.points.split(_rows(2 * dim))]))

    def nearest(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the distances (Q, k), rising, and the indices (Q, k) of the ``k`` nearest points to ``queries``.

        Distances are float32 without cancellation: a query that is itself in the bank finds 0.
        """
        size, dim = self.points.shape
        if not 1 <= k <= size:
            raise ValueError(f"{k} neighbours were asked of a bank of {size} points")
        queries = queries.detach().float()
        if torch.compiler.is_exporting():
            return blockwise_neighbours(queries, self.points, self.centre, k)
        distance = torch.empty(len(queries), k, device=queries.device)
        index = torch.empty(len(queries), k, device=queries.device, dtype=torch.long)
        with torch.autocast(queries.device.type, enabled=False):  # training in 16 bits needs exact neighbours too
            reduce = self.reduced is not None and torch.get_float32_matmul_precision() == "highest"
            rows, step = torch.arange(len(queries), device=queries.device), _rows(max(size, k * dim))
            for part in (*rows[:TRIAL].split(step), *rows[TRIAL:].split(step)):
                if reduce and self.reduced is not None and len(part):
                    short = self._reduce(queries[part])
                    found, *answer, measured = self._refine(queries[part], short, _lower_bounds(short, self.reduced), k)
                    distance[part[found]], index[part[found]] = answer
                    cost, part = measured * SINGLE_COST + int((~found).sum()) * size, part[~found]
                    reduce = 2 * cost < len(found) * size  # else the remaining queries go without
                if len(part):
                    distance[part], index[part] = self._all_pairs(queries[part], k)
        return distance, index

    def _all_pairs(self, queries: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """Compare every query with every point."""
        centred = queries - self.centre
        bound = _lower_bounds(centred, self.table)  # (Q, M')
        found, distance, index, _ = self._refine(queries, centred, bound, k, tight=True)
        if bool(found.all()):
            return distance, index
        best = bound.topk(k, largest=False).indices.sort(1).values  # too many are equal but for rounding
        row = torch.arange(len(queries), device=queries.device).repeat_interleave(k)
        squared, order = self._squared(queries, row, best.flatten()).view(-1, k).sort(dim=1, stable=True)
        every, indices = squared.sqrt(), best.gather(1, order)
        every[found], indices[found] = distance, index
        return every, indices

    def _refine(
        self, queries: Tensor, short: Tensor, bound: Tensor, k: int, tight: bool = False
    ) -> tuple[Tensor, Tensor, Tensor, int]:
        """Measure the points that the lower bounds do not exclude.

        Args:
            queries: (Q, D)
            short: what the bounds were computed from, (Q, n)
            bound: lower bounds (Q, M') of the squared distances, less |x|²
            k: neighbours
            tight: whether the bounds are the distances, up to rounding

        Returns:
            which queries (Q,) have few enough points left; their distances and indices; how many points were measured
        """
        least = bound.view(len(bound), BLOCK, -1).amin(1)  # (Q, G): block g holds the points g, g + G, g + 2G ...
        stride = torch.arange(BLOCK, device=bound.device) * least.shape[1]
        near = least.topk(min(k, least.shape[1]), largest=False).indices if k > 1 else least.argmin(1, keepdim=True)
        inside = bound.gather(1, (near[:, :, None] + stride).flatten(1)).view(*near.shape, BLOCK)
        if tight:
            limit = inside.amin(2).amax(1) + 2 * self._rounding(short)
        else:  # the distance to k different points with small bounds
            near = near + stride[inside.argmin(2)]
            row = torch.arange(len(queries), device=bound.device).repeat_interleave(near.shape[1])
            limit = self._squared(queries, row, near.flatten()).view(near.shape).amax(1)
            limit = limit * (1 + queries.shape[1] * ROUNDING) + self._rounding(short) - short.square().sum(1)
            limit = limit.float()
        hit = least <= limit[:, None]
        few = hit.sum(1) <= len(self.points) // SINGLE_COST + 2 * k + 2  # else all pairs cost less
        row, block = (hit & few[:, None]).nonzero(as_tuple=True)
        column = block[:, None] + stride  # (hits, BLOCK)
        remains = bound[row[:, None], column] <= limit[row, None]
        row, column = row[:, None].expand_as(column)[remains], column[remains]
        count = row.bincount(minlength=len(queries))
        found = few & (count >= k) & (near.shape[1] == k)  # fewer where something is not finite

        squared = self._squared(queries, row, column)
        order = column.argsort()  # by row, then distance, then index
        order = order[squared[order].argsort(stable=True)]
        order = order[row[order].argsort(stable=True)]
        best = (count.cumsum(0) - count)[found, None] + torch.arange(k, device=row.device)
        return found, squared[order][best].sqrt(), column[order][best], len(row)

    @cached_property
    def table(self) -> Tensor:
        """The points themselves, prepared for bounds: (M', D + 1)."""
        return _table(self.points - self.centre)

    @cached_property
    def radius(self) -> Tensor:
        """The distance () from the centre to the farthest point."""
        squares = [(p - self.centre).square_().sum(1).amax() for p in self.points.split(_rows(self.points.shape[1]))]
        return torch.stack(squares).amax().sqrt()

    def _reduce(self, points: Tensor) -> Tensor:
        """Return the principal components and the norm of the residual: (N, components + 1), float64."""
        full = points.double() - self.centre.double()
        head = full @ self.axes
        rest = full.square().sum(1) - head.square().sum(1)
        return torch.cat([head, rest.clamp(min=0).sqrt()[:, None]], 1)

    def _rounding(self, short: Tensor) -> Tensor:
        """Bound the rounding error (Q,) of all bounds computed from ``short`` (Q, n), in any order of summation."""
        return (short.shape[1] + 32) * ROUNDING * (short.norm(dim=1) + self.radius).square()

    def _squared(self, queries: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the squared distances (P,) of the pairs ``queries[row]``, ``points[column]``, by subtraction."""
        step = max(1, CHUNK // 32 // (4 * queries.shape[1]))  # small enough to stay in a processor's cache
        pairs = zip(row.split(step), column.split(step), strict=True)
        parts = [queries.index_select(0, r).sub_(self.points.index_select(0, c)).square_().sum(1) for r, c in pairs]
        return torch.cat(parts)


class CachedIndex:
    """Makes the index of a bank at its first use, and again when another bank is given."""

    def __init__(self) -> None:
        self._index: NeighbourIndex | None = None

    def __call__(self, points: Tensor) -> NeighbourIndex:
        """Return the index of the points (M, D)."""
        if torch.compiler.is_exporting():
            return NeighbourIndex(points, components=0)
        if self._index is None or self._index.points.data_ptr() != points.data_ptr():
            self._index = NeighbourIndex(points)
        return self._index


def blockwise_neighbours(queries: Tensor, points: Tensor, centre: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return what :meth:`NeighbourIndex.nearest` does, up to rounding, by products of matrices alone.

    An exported graph can neither branch on values nor keep a prepared index. Blocks of the bank bound its memory. The
    tables of the blocks follow from the bank, so runtimes compute them once, when they load the graph.
    """
    queries, centred = queries - centre, points - centre
    rows = torch.cat([queries, torch.ones_like(queries[:, :1])], 1)
    index = _candidates(rows, centred) if k == 1 else _nearest_bounds(rows, centred, k)
    apart = queries[:, None] - centred[index]
    found = (apart * apart).sum(2)  # without cancellation
    found, order = found.min(1, keepdim=True) if k == 1 else found.sort(dim=1)
    return found.sqrt(), index.gather(1, order)


def _candidates(rows: Tensor, points: Tensor) -> Tensor:
    """Return indices (Q, n), at most ``MOST_BLOCKS``, one of which is that of the nearest of ``points`` (M, D).

    ``rows`` (Q, D + 1) are queries with a one. The bank is cut into n equal blocks. The smallest bound of each column
    over all blocks takes a fraction of the time of the smallest of all; the column that holds the smallest has one
    point of every block. Products are computed for parts of the columns, whose bounds stay in a processor's cache.
    """
    size = points.shape[0]
    count = min(MOST_BLOCKS, -(-size // (COLUMN_PARTS * COLUMNS)))
    parts = min(COLUMN_PARTS, -(-size // (count * COLUMNS)))
    width = -(-size // (count * parts * ALIGNED)) * ALIGNED
    table = _bounds_table(points, count * parts * width)
    least = []
    for part in range(parts):
        starts = [(block * parts + part) * width for block in range(count)]
        bounds = (rows @ table[start : start + width].T for start in starts)
        least.append(reduce(torch.minimum, bounds))
    column = torch.cat(least, 1).argmin(1, keepdim=True)
    return (column + parts * width * torch.arange(count, device=rows.device)).clamp(max=size - 1)


def _nearest_bounds(rows: Tensor, points: Tensor, k: int) -> Tensor:
    """Return the indices (Q, k) of the smallest bounds of ``rows`` (Q, D + 1) to ``points`` (M, D)."""
    best = None
    for start in range(0, points.shape[0], EXPORTED_BLOCK):
        block = points[start : start + EXPORTED_BLOCK]
        near, index = (rows @ _bounds_table(block, len(block)).T).topk(min(k, len(block)), largest=False)
        best = (near, index + start) if best is None else _merged(best, (near, index + start), k)
    assert best is not None
    return best[1]


def _merged(best: tuple[Tensor, Tensor], new: tuple[Tensor, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return the ``k`` smallest of two sets of bounds (Q, ·) with their indices."""
    bound, index = torch.cat([best[0], new[0]], 1), torch.cat([best[1], new[1]], 1)
    bound, order = bound.topk(min(k, bound.shape[1]), largest=False)
    return bound, index.gather(1, order)


def _table(points: Tensor) -> Tensor:
    """Return the bounds' table of ``points`` (M, n), (M', n + 1), float32; M' fills blocks."""
    return _bounds_table(points, len(points) + -len(points) % BLOCK)


def _bounds_table(points: Tensor, rows: int) -> Tensor:
    """Return [-2c, |c|²] of ``points`` (M, n), (rows, n + 1), float32; other rows are infinitely far."""
    if torch.compiler.is_exporting():
        table = torch.cat([-2 * points, points.square().sum(1, keepdim=True)], 1)
        far = torch.zeros(rows - points.shape[0], points.shape[1] + 1, device=points.device)
        far[:, -1] = torch.inf
        return torch.cat([table, far])
    table = torch.empty(rows, points.shape[1] + 1, device=points.device)
    table[: len(points), :-1] = -2 * points
    table[: len(points), -1] = points.square().sum(1)
    table[len(points) :, :-1], table[len(points) :, -1] = 0, torch.inf
    return table


def _lower_bounds(points: Tensor, table: Tensor) -> Tensor:
    """Return squared distances less |x|² of ``points`` (Q, n) to all rows of the table: (Q, M')."""
    return torch.cat([points, torch.ones_like(points[:, :1])], 1).float() @ table.T


def _principal_axes(points: Tensor, count: int, rounds: int = 2) -> Tensor:
    """Return orthonormal directions (D, count), float64, that nearly span the largest variance of centred ``points``.

    Subspace iteration. How well the axes fit decides the speed, never a result.
    """
    evenly = torch.linspace(0, len(points) - 1, count, device=points.device).long()
    basis = points[evenly].T
    for _ in range(rounds):
        basis = torch.linalg.qr(points.T @ (points @ basis))[0]
    return torch.linalg.qr(basis.double())[0]


def _rows(width: int) -> int:
    return max(1, CHUNK // (4 * width))
