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
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.empty(0))  # (C, h, w)
        self.register_buffer("factor", torch.empty(0))  # (P, C + 1, C / 2), P = h * w
        self._pending: list[list[Tensor]] = []

    def reset(self) -> None:
        """Reset to the state before any image."""
        self.count = torch.zeros_like(self.count)
        self.mean, self.factor = self.mean.new_empty(0), self.factor.new_empty(0)
        self._pending = []

    @torch.no_grad()
    def add(self, layers: Sequence[Tensor]) -> None:
        """Add the features of a batch. How images are batched changes nothing but the rounding."""
        self._pending.append([layer.contiguous() for layer in layers])
        if sum(len(pending[0]) for pending in self._pending) >= PENDING:
            self._accumulate()

    @torch.no_grad()
    def factorise(self) -> None:
        """Turn the sums into Cholesky factors, in place. After this nothing can be added."""
        self._accumulate()
        count = int(self.count)
        if count == 0:
            raise BadConfig("there is no normal image to fit on. Give at least one.")
        scale = 1 / max(count - self.unbiased, 1)
        failed = _each(self.factor, lambda part: _factorise(self.factor[part], scale, self.regularisation), "factorise")
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
    def merge(self, others: Sequence[Self]) -> None:
        """Become the Gaussians of all images that ``others`` were fitted on, as if they had been added here."""
        if len({o.mean.shape for o in others}) != 1:
            raise BadConfig("Gaussians over feature maps of different shapes cannot be merged. Use one view for all.")
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

    def _accumulate(self) -> None:
        """Add the pending images to the sums and to the mean."""
        if not self._pending:
            return
        stack, self._pending = _Stack(self._pending), []
        before, new, (channels, height, width) = int(self.count), stack.images, stack.shape
        if before == 0:
            half = (channels + 1) // 2
            self.mean = stack.batches[0][0].new_zeros(stack.shape)
            self.factor = self.mean.new_zeros(height * width, 2 * half + 1, half)
        self._check(stack)
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

    def _check(self, stack: _Stack) -> None:
        if stack.shape != self.mean.shape:
            known, shown = ("x".join(map(str, s)) for s in (self.mean.shape, stack.shape))
            raise BadConfig(f"the Gaussians are over features of {known}, not {shown}. Use the view of the fit.")


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


def _factorise(packed: Tensor, scale: float, regularisation: float) -> int:
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
    size = max(int(other.count) - other.unbiased, 1)
    first, second, below = _blocks(other.factor[part])
    first, second = first.tril(), second.tril()
    to_first, to_second, to_below = _blocks(sums[part])
    to_below.baddbmm_(below, first.mT, alpha=size)
    for target, product in (
        (to_first, first @ first.mT),
        (to_second, torch.baddbmm(second @ second.mT, below, below.mT)),
    ):
        product.diagonal(dim1=1, dim2=2).sub_(other.regularisation)
        target += product.tril_().mul_(size)
    _gather(sums[part], row[part])


def _distance(packed: Tensor, x: Tensor) -> Tensor:
    """Return the lengths (p, B) of L^-1 x for packed factors (p, C + 1, c) and centred x (p, C, B)."""
    first, second, below = _blocks(packed)
    a, b = x.chunk(2, 1)
    top = torch.linalg.solve_triangular(first, a, upper=False)
    bottom = torch.linalg.solve_triangular(second, torch.baddbmm(b, below, top, alpha=-1), upper=False)
    return (top.square().sum(1) + bottom.square().sum(1)).sqrt()
