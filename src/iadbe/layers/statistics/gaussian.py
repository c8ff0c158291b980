"""A multivariate Gaussian at every position of a feature map, and Mahalanobis distances to it.

:func:`reference_distance` is the plain algorithm for one position: mean, covariance plus a regularisation on the
diagonal, and the distance through the inverse. :class:`PositionGaussians` computes the same, to float32's rounding, in
less memory and time:

* **Streaming.** Images are added batch by batch as in Chan, Golub and LeVeque, "Updating formulae and a pairwise
  algorithm for computing sample variances", 1979. Each batch is centred on its own mean, and one more row accounts for
  the difference between the means. Nothing large is subtracted, so float32 is enough.
* **In place.** The buffer that gathers the sums becomes the Cholesky factor L of the covariance. The distance is the
  norm of the solution y of L y = x - mean, without an inverse.
* **Packed.** For C channels a covariance is kept as the C(C + 1)/2 numbers of one triangle. Half of the channels
  (c = C/2) make the triangle ``first``, the other half ``second``, and the covariances between both the square
  ``below``. ``second`` lies transposed in the corner that ``first`` leaves empty, so one rectangle (C + 1, c) holds
  everything and all operations are on whole blocks. An odd C gets one more channel of zeros, which adds nothing to
  any distance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe import progress
from iadbe.errors import BadConfig
from iadbe.layers.features.patches import concatenated

T = TypeVar("T")
CHUNK = 2**22  # numbers of full covariances per task, few enough for a processor's cache
CHUNK_CUDA = 2**26
PENDING = 64  # images that are summed in one pass over the sums, which are larger than any cache


def reference_distance(rows: Tensor, queries: Tensor, regularisation: float = 0.01, unbiased: bool = True) -> Tensor:
    """Return the Mahalanobis distances (Q,) of queries (Q, C) from the Gaussian of rows (N, C), in float64."""
    rows, centred = rows.double(), queries.double() - rows.double().mean(0)
    covariance = (rows - rows.mean(0)).T @ (rows - rows.mean(0)) / max(len(rows) - unbiased, 1)
    covariance.diagonal().add_(regularisation)
    return (centred * torch.linalg.solve(covariance, centred.T).T).sum(1).sqrt()


class PositionGaussians(nn.Module):
    """One Gaussian per position. Call ``add`` with the features of images, then ``factorise``, then ``distance``.

    ``add`` may say which positions of an image count; a position's Gaussian is then of the images where it does.

    Features are layers [(B, C, h, w), ...]. The grid of the first layer is that of the Gaussians; coarser layers are
    resized to it (nearest neighbour), for a few positions at a time. C is the sum of all channels.
    """

    count: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, regularisation: float = 0.01, unbiased: bool = True) -> None:
        """Make Gaussians without data.

        Args:
            regularisation: is added to the diagonal of every covariance, above 0
            unbiased: divide by N - 1, as PaDiM does, or by N
        """
        super().__init__()
        if regularisation <= 0:
            raise BadConfig(f"regularisation must be above 0, not {regularisation}.")
        self.regularisation = regularisation
        self.unbiased = unbiased
        # of all positions, or (P,) where they differ
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.empty(0))  # (C, h, w)
        self.register_buffer("factor", torch.empty(0))  # (P, C + 1, C / 2), P = h * w
        self._pending: list[list[Tensor]] = []
        self._counted: list[Tensor | None] = []  # of the pending batches, (B, P) bool

    def reset(self) -> None:
        """Reset to the state before any image."""
        self.count = self.count.new_zeros(())
        self.mean, self.factor = self.mean.new_empty(0), self.factor.new_empty(0)
        self._pending, self._counted = [], []

    @torch.no_grad()
    def add(self, layers: Sequence[Tensor], counts: Tensor | None = None) -> None:
        """Add the features of a batch, of positions that count (B, h, w) bool, by default all.

        How images are batched changes nothing but the rounding.
        """
        self._counted.append(None if counts is None else counts.flatten(1))
        self._pending.append([layer.contiguous() for layer in layers])
        if sum(len(pending[0]) for pending in self._pending) >= PENDING:
            self._accumulate()

    @torch.no_grad()
    def factorise(self) -> None:
        """Turn the sums into Cholesky factors, in place. After this nothing can be added."""
        self._accumulate()
        count = int(self.count.max())
        if count == 0:
            raise BadConfig("there is no normal image to fit on. Give at least one.")

        def factorised(part: slice) -> int:
            return _factorise(self.factor[part], 1 / self._divisor(part), self.regularisation)

        failed = _each(self.factor, factorised, "factorise")
        if bad := sum(failed):
            raise BadConfig(
                f"at {bad} of {len(self.factor)} positions the covariance of {count} images is singular in float32: "
                f"its values are too large for a regularisation of {self.regularisation}. Raise it."
            )

    @torch.no_grad()
    def distance(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the Mahalanobis distances (B, h, w), 0 or more."""
        stack = _Stack([layers])
        self._check(stack)
        mean, odd = self.mean.flatten(1), len(self.mean) % 2

        def distances(part: slice) -> Tensor:
            x = (stack[part] - mean[:, part]).permute(2, 1, 0)  # (p, C, B)
            return _distance(self.factor[part], F.pad(x, (0, 0, 0, odd)))

        return torch.cat(_each(self.factor, distances)).T.reshape(stack.images, *self.mean.shape[1:])

    @torch.no_grad()
    def for_export(self) -> nn.Module:
        """Return a module with the same ``distance``, in products of matrices alone."""
        return ExportedGaussians(self.mean, self.factor)

    @torch.no_grad()
    def merge(self, others: Sequence[Self]) -> None:
        """Become the Gaussians of all images that ``others`` were fitted on, as if they had been added here."""
        if len({o.mean.shape for o in others}) != 1:
            raise BadConfig("Gaussians over feature maps of different shapes cannot be merged. Use one view for all.")
        if any(o.count.dim() for o in others):
            self._merge_counted(others)
            return
        mean, total = torch.zeros_like(others[0].mean), 0
        sums = torch.zeros_like(others[0].factor)
        for other in others:
            count, step = int(other.count), other.mean - mean
            row = F.pad(step.flatten(1).T, (0, len(step) % 2))[:, None] * (total * count / (total + count)) ** 0.5
            _each(sums, partial(_add_factor, sums, other, row))
            total += count
            mean += step * (count / total)
        self.mean, self.factor, self.count = mean, sums, torch.full_like(others[0].count, total)
        self.factorise()

    def _merge_counted(self, others: Sequence[Self]) -> None:
        """Merge Gaussians whose positions have numbers of images of their own."""
        sums, mean = torch.zeros_like(others[0].factor), torch.zeros_like(others[0].mean)
        total = others[0].count.new_zeros(len(sums))
        for other in others:
            count, step = other.count.expand(len(sums)), other.mean - mean
            share = count.to(mean) / (total + count).clamp(min=1)
            row = F.pad(step.flatten(1).T, (0, len(step) % 2))[:, None] * (total * share).sqrt()[:, None, None]
            _each(sums, partial(_add_factor, sums, other, row))
            total = total + count
            mean += step * share.view(mean.shape[1:])
        self.mean, self.factor, self.count = mean, sums, total
        self.factorise()

    def _divisor(self, part: slice) -> Tensor | int:
        """Return what sums are divided by, at least 1: of all positions, or (p, 1, 1) where they differ."""
        if self.count.dim() == 0:
            return max(int(self.count) - self.unbiased, 1)
        return (self.count[part] - int(self.unbiased)).clamp(min=1).float()[:, None, None]

    def _accumulate(self) -> None:
        """Add the pending images to the sums and to the mean."""
        if not self._pending:
            return
        stack, self._pending = _Stack(self._pending), []
        counted, self._counted = self._counted, []
        new, (channels, height, width) = stack.images, stack.shape
        if not self.mean.numel():
            half = (channels + 1) // 2
            self.mean = stack.batches[0][0].new_zeros(stack.shape)
            self.factor = self.mean.new_zeros(height * width, 2 * half + 1, half)
        self._check(stack)
        if self.count.dim() or any(part is not None for part in counted):
            self._accumulate_counted(stack, counted)
            return
        before = int(self.count)
        mean, odd, weight = self.mean.flatten(1), channels % 2, (before * new / (before + new)) ** 0.5

        def gather(part: slice) -> None:
            rows = F.pad(stack[part].permute(2, 0, 1), (0, odd, 0, 1))  # (p, B + 1, C): one more row, an even C
            shown = rows[:, :new, :channels]
            middle = shown.mean(1)
            step = middle - mean[:, part].T
            shown -= middle[:, None]
            rows[:, new, :channels] = step * weight
            _gather(self.factor[part], rows)
            mean[:, part] += step.T * (new / (before + new))

        _each(self.factor, gather)
        self.count += new

    def _accumulate_counted(self, stack: _Stack, counted: Sequence[Tensor | None]) -> None:
        """Add images of which some positions do not count: they add nothing to a position's sums, mean and number."""
        positions, channels = len(self.factor), len(self.mean)
        sizes = [len(layers[0]) for layers in stack.batches]
        known = [
            self.mean.new_ones(size, positions) if part is None else part.to(self.mean)
            for part, size in zip(counted, sizes, strict=True)
        ]
        counts = torch.cat(known)  # (B, P) of 0 and 1
        before, new = self.count.expand(positions).to(counts), counts.sum(0)
        share = new / (before + new).clamp(min=1)
        mean, odd, weight = self.mean.flatten(1), channels % 2, (before * share).sqrt()

        def gather(part: slice) -> None:
            rows = F.pad(stack[part].permute(2, 0, 1), (0, odd, 0, 1))  # (p, B + 1, C)
            shown, own = rows[:, :-1, :channels], counts[:, part].T[:, :, None]
            middle = (shown * own).sum(1) / new[part].clamp(min=1)[:, None]
            step = middle - mean[:, part].T
            shown.sub_(middle[:, None]).mul_(own)
            rows[:, -1, :channels] = step * weight[part][:, None]
            _gather(self.factor[part], rows)
            mean[:, part] += step.T * share[part]

        _each(self.factor, gather)
        self.count = self.count + new.to(self.count.dtype)

    def _check(self, stack: _Stack) -> None:
        if stack.shape != self.mean.shape:
            known, shown = ("x".join(map(str, s)) for s in (self.mean.shape, stack.shape))
            raise BadConfig(f"the Gaussians are over features of {known}, not {shown}. Use the view of the fit.")


class ExportedGaussians(nn.Module):
    """The fitted Gaussians with inverted Cholesky factors: an exported graph has no triangular solver."""

    def __init__(self, mean: Tensor, factor: Tensor) -> None:
        """Invert packed factors (P, C + 1, c); the inverse of a lower triangle has the same layout."""
        super().__init__()
        self.mean: Tensor
        self.inverse: Tensor
        self.register_buffer("mean", mean)  # (C, h, w)
        self.register_buffer("inverse", torch.cat(_each(factor, lambda part: _inverted(factor[part]))))

    def distance(self, layers: Sequence[Tensor]) -> Tensor:
        """Return the Mahalanobis distances (B, h, w) of layers (B, C', h', w'), C channels in all."""
        channels, height, width = self.mean.shape
        x = (concatenated(layers) - self.mean).flatten(2).permute(2, 1, 0)  # (P, C, B)
        a, b = F.pad(x, (0, 0, 0, channels % 2)).chunk(2, 1)
        first, second, below = _blocks(self.inverse)
        top, bottom = first.tril() @ a, second.tril() @ b + below @ a
        return (top.square().sum(1) + bottom.square().sum(1)).sqrt().T.reshape(-1, height, width)


class _Stack:
    """Batches of layers on the grid of the first layer; ``stack[part]`` resizes them for some positions only."""

    def __init__(self, batches: Sequence[Sequence[Tensor]]) -> None:
        first, *coarser = batches[0]
        self.shape = torch.Size((sum(layer.shape[1] for layer in batches[0]), *first.shape[2:]))
        self.images = sum(len(layers[0]) for layers in batches)
        self.batches = [[layer.flatten(2) for layer in layers] for layers in batches]
        self.cells = [_cells(layer, *first.shape[2:]) for layer in coarser]

    def __getitem__(self, part: slice) -> Tensor:
        """Return (B, C, p)."""
        cells = [c[part] for c in self.cells]
        return torch.cat(
            [
                torch.cat([first[..., part], *(x.index_select(2, c) for x, c in zip(coarser, cells, strict=True))], 1)
                for first, *coarser in self.batches
            ]
        )


def _cells(layer: Tensor, height: int, width: int) -> Tensor:
    """Return the index of the cell of a layer (B, C, h, w) that covers each position of the grid: (P,)."""
    h, w = layer.shape[2:]
    numbers = torch.arange(h * w, dtype=torch.float64).view(1, 1, h, w)  # on the CPU, for mps has no float64
    return F.interpolate(numbers, size=(height, width), mode="nearest").flatten().long().to(layer.device)


def _each(factor: Tensor, work: Callable[[slice], T], phase: str = "") -> list[T]:
    """Call ``work`` on slices of the positions of ``factor``; results in order.

    torch's own threads do not help batches of small matrices (a batched Cholesky is a hundred times slower with
    two). So each thread here limits torch to one and works on slices of its own.
    """
    positions, square = len(factor), 4 * factor.shape[2] ** 2
    size = max(1, (CHUNK_CUDA if factor.is_cuda else CHUNK) // square)
    parts = [slice(start, start + size) for start in range(0, positions, size)]
    if factor.is_cuda:
        return [work(part) for part in parts]
    inference, found = torch.is_inference_mode_enabled(), []

    def in_thread(part: slice) -> T:
        with torch.inference_mode(inference), torch.no_grad():  # both are settings of a thread
            return work(part)

    with _single_threaded() as threads, ThreadPoolExecutor(threads, "gaussian", torch.set_num_threads, (1,)) as pool:
        for number, result in enumerate(pool.map(in_thread, parts)):
            found.append(result)
            if phase:
                progress.report(phase, number + 1, len(parts))
    return found


@contextmanager
def _single_threaded() -> Iterator[int]:
    """Limit torch to one thread in the block; yield the number it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _blocks(packed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the views first, second, below of (p, C + 1, c), each (p, c, c).

    In ``first`` and ``second`` only the lower triangle counts; the upper one belongs to the other.
    """
    half = packed.shape[2]
    return packed[:, 1 : half + 1], packed[:, :half].mT, packed[:, half + 1 :]


def _gather(packed: Tensor, rows: Tensor) -> None:
    """Add the outer products of rows (p, n, C) to packed sums (p, C + 1, c)."""
    first, second, below = _blocks(packed)
    a, b = rows.chunk(2, -1)
    below.baddbmm_(b.mT, a)
    first += torch.bmm(a.mT, a).tril_()
    second.mT.add_(torch.bmm(b.mT, b).triu_())  # symmetric: the triangle that lies in memory as ``second`` does


def _factorise(packed: Tensor, scale: Tensor | float, regularisation: float) -> int:
    """Replace packed sums (p, C + 1, c) by the Cholesky factor of scale * sums + regularisation * I.

    Return the number of positions where the matrix is not positive definite.
    """
    first, second, below = _blocks(packed.mul_(scale))
    for triangle in (first, second):
        triangle.diagonal(dim1=1, dim2=2).add_(regularisation)
    upper, failed = torch.linalg.cholesky_ex(first.mT, upper=True)  # reads that triangle only
    below.copy_(torch.linalg.solve_triangular(upper.mT, below.mT, upper=False).mT)
    lower, failed_below = torch.linalg.cholesky_ex(torch.baddbmm(second, below, below.mT, alpha=-1))
    packed[:, : packed.shape[2] + 1] = 0
    first += upper.mT
    second += lower
    return int(((failed != 0) | (failed_below != 0)).sum())


def _add_factor(sums: Tensor, other: PositionGaussians, row: Tensor, part: slice) -> None:
    """Add the sums that ``other`` factorised, size * (L L^T - regularisation * I), and a row to packed ``sums``."""
    size = other._divisor(part)
    first, second, below = _blocks(other.factor[part])
    first, second = first.tril(), second.tril()
    to_first, to_second, to_below = _blocks(sums[part])
    if isinstance(size, int):
        to_below.baddbmm_(below, first.mT, alpha=size)
    else:
        to_below += torch.bmm(below, first.mT).mul_(size)
    for target, product in (
        (to_first, first @ first.mT),
        (to_second, torch.baddbmm(second @ second.mT, below, below.mT)),
    ):
        product.diagonal(dim1=1, dim2=2).sub_(other.regularisation)
        target += product.tril_().mul_(size)
    _gather(sums[part], row[part])


def _inverted(packed: Tensor) -> Tensor:
    """Return the inverses of packed lower triangles (p, C + 1, c), packed likewise."""
    first, second, below = _blocks(packed)
    whole = torch.eye(packed.shape[2], dtype=packed.dtype, device=packed.device).expand_as(first)
    result = torch.zeros_like(packed)
    into_first, into_second, into_below = _blocks(result)
    top, bottom = (torch.linalg.solve_triangular(part, whole, upper=False) for part in (first, second))
    into_below.copy_(-(bottom @ below @ top))
    into_first += top
    into_second += bottom
    return result


def _distance(packed: Tensor, x: Tensor) -> Tensor:
    """Return the lengths (p, B) of L^-1 x for packed factors (p, C + 1, c) and centred x (p, C, B)."""
    first, second, below = _blocks(packed)
    a, b = x.chunk(2, 1)
    top = torch.linalg.solve_triangular(first, a, upper=False)
    bottom = torch.linalg.solve_triangular(second, torch.baddbmm(b, below, top, alpha=-1), upper=False)
    return (top.square().sum(1) + bottom.square().sum(1)).sqrt()
