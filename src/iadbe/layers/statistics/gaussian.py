"""A multivariate Gaussian at every position of a feature map: streamed, factorised in place, mergeable.

For C channels a covariance is kept as the C(C + 1)/2 numbers of one triangle, and only once: the buffer that
gathers the sums becomes the Cholesky factor L. Half of the channels (c = C/2) make the triangle ``first``, the
other half ``second``, and what is between them the square ``below``. ``second`` lies transposed in the corner that
``first`` leaves empty, so that one rectangle (C + 1, c) is full to the last number and all algebra on it is on
whole blocks. An odd C gets one more channel of zeros, which adds nothing to any distance.

The sums are those of Chan, Golub and LeVeque (1979): each batch is centred on its own mean, and one more row
accounts for the step between the means. Nothing large is ever subtracted, so float32 is enough.
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
CHUNK = 2**22  # numbers of full covariances that are worked on at a time: little enough for a cache
CHUNK_CUDA = 2**26
TOGETHER = 64  # images that are held back, to be summed in one pass over the sums, which are larger than any cache


class PositionGaussians(nn.Module):
    """One Gaussian per position. ``add`` the features of images, ``factorise``, then ask for the ``distance``.

    Features come as layers [(B, C, h, w), ...]: the first layer's grid is that of the Gaussians, and the values of
    coarser layers count for every position that they cover (nearest neighbour). They are repeated only for the few
    positions at hand.
    """

    count: Tensor
    mean: Tensor
    factor: Tensor

    def __init__(self, regularisation: float = 0.01, unbiased: bool = True) -> None:
        """Make Gaussians that know nothing yet.

        Args:
            regularisation: is added to the diagonal of every covariance
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
        self._held: list[list[Tensor]] = []

    def reset(self) -> None:
        """Forget everything."""
        self.count = torch.zeros_like(self.count)
        self.mean, self.factor = self.mean.new_empty(0), self.factor.new_empty(0)
        self._held = []

    @torch.no_grad()
    def add(self, layers: Sequence[Tensor]) -> None:
        """Take in the features of a batch. How images are batched changes nothing but the rounding."""
        self._held.append([layer.contiguous() for layer in layers])
        if sum(len(held[0]) for held in self._held) >= TOGETHER:
            self._absorb()

    @torch.no_grad()
    def factorise(self) -> None:
        """Turn the sums into Cholesky factors, where they lie. After this nothing can be added."""
        self._absorb()
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
        """Return the Mahalanobis distances (B, h, w), from 0 up."""
        stack = _Stack([layers])
        self._check(stack)
        mean, odd = self.mean.flatten(1), len(self.mean) % 2

        def distances(part: slice) -> Tensor:
            x = (stack[part] - mean[:, part]).permute(2, 1, 0)  # (p, C, B)
            return _distance(self.factor[part], F.pad(x, (0, 0, 0, odd)))

        return torch.cat(_each(self.factor, distances)).T.reshape(stack.images, *self.mean.shape[1:])

    @torch.no_grad()
    def merge(self, others: Sequence[Self]) -> None:
        """Become the Gaussians of all images that ``others`` were fitted on, as if one had seen them all."""
        if len({o.mean.shape for o in others}) != 1:
            raise BadConfig("Gaussians over feature maps of different shapes cannot be merged. Use one view for all.")
        mean, total = torch.zeros_like(others[0].mean), 0
        sums = torch.zeros_like(others[0].factor)
        for other in others:
            count, step = int(other.count), other.mean - mean
            row = F.pad(step.flatten(1).T, (0, len(step) % 2))[:, None] * (total * count / (total + count)) ** 0.5
            _each(sums, partial(_take_over, sums, other, row))
            total += count
            mean += step * (count / total)
        self.mean, self.factor, self.count = mean, sums, torch.full_like(others[0].count, total)
        self.factorise()

    def _absorb(self) -> None:
        """Add to the sums, and to the mean, the images that are held back."""
        if not self._held:
            return
        stack, self._held = _Stack(self._held), []
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
    """Batches of layers as if brought to the grid of the first layer: ``stack[part]`` does it for some positions."""

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
    """Return for each position of the grid (P,) which cell of a layer (B, C, h, w) lies over it."""
    h, w = layer.shape[2:]
    numbers = torch.arange(h * w, dtype=torch.float64, device=layer.device).view(1, 1, h, w)
    return F.interpolate(numbers, size=(height, width), mode="nearest").flatten().long()


def _each(factor: Tensor, work: Callable[[slice], T], phase: str = "") -> list[T]:
    """Call ``work`` on slices of the positions of ``factor``; results in order.

    torch's own threads do not help batches of small matrices (a batched Cholesky is a hundred times slower with
    two), so each of our threads holds torch to one and takes slices of its own.
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
    """Hold torch to one thread in the block; gives the number it had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield threads
    finally:
        torch.set_num_threads(threads)


def _blocks(folded: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Show (p, C + 1, c) as the views first, second, below, each (p, c, c).

    Of ``first`` and ``second`` only the lower triangle is theirs: the upper one is the other's.
    """
    half = folded.shape[2]
    return folded[:, 1 : half + 1], folded[:, :half].mT, folded[:, half + 1 :]


def _gather(folded: Tensor, rows: Tensor) -> None:
    """Add the outer products of rows (p, n, C) to folded sums (p, C + 1, c)."""
    first, second, below = _blocks(folded)
    a, b = rows.chunk(2, -1)
    below.baddbmm_(b.mT, a)
    first += torch.bmm(a.mT, a).tril_()
    second.mT.add_(torch.bmm(b.mT, b).triu_())  # symmetric: the triangle that lies in memory as ``second`` does


def _factorise(folded: Tensor, scale: float, regularisation: float) -> int:
    """Replace folded sums (p, C + 1, c) by the Cholesky factor of scale * sums + regularisation * I.

    Returns at how many positions that cannot be done.
    """
    first, second, below = _blocks(folded.mul_(scale))
    for triangle in (first, second):
        triangle.diagonal(dim1=1, dim2=2).add_(regularisation)
    upper, failed = torch.linalg.cholesky_ex(first.mT, upper=True)  # reads that triangle only
    below.copy_(torch.linalg.solve_triangular(upper.mT, below.mT, upper=False).mT)
    lower, failed_below = torch.linalg.cholesky_ex(torch.baddbmm(second, below, below.mT, alpha=-1))
    folded[:, : folded.shape[2] + 1] = 0
    first += upper.mT
    second += lower
    return int(((failed != 0) | (failed_below != 0)).sum())


def _take_over(sums: Tensor, other: PositionGaussians, row: Tensor, part: slice) -> None:
    """Add to folded ``sums`` what ``other`` made its factor of, size * (L L^T - regularisation * I), and a row."""
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


def _distance(folded: Tensor, x: Tensor) -> Tensor:
    """Return the lengths (p, B) of L^-1 x for folded factors (p, C + 1, c) and centred x (p, C, B)."""
    first, second, below = _blocks(folded)
    a, b = x.chunk(2, 1)
    top = torch.linalg.solve_triangular(first, a, upper=False)
    bottom = torch.linalg.solve_triangular(second, torch.baddbmm(b, below, top, alpha=-1), upper=False)
    return (top.square().sum(1) + bottom.square().sum(1)).sqrt()
