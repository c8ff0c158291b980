"""Invertible bricks of normalising flows: each tells what it made and how much volume that took.

A brick takes rows (N, C) or maps (B, C, h, w). ``forward`` returns (z, log_det) with one value of log_det per row (N,)
or position (B, h, w): its sum over the positions is the logarithm of the Jacobian's determinant of a whole map.
``inverse`` undoes it. A condition, where one is given, is (N, P) for rows and (1, P, h, w), shared by all images,
for maps; only couplings look at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Soft = Literal["tanh", "atan"]
Subnet = Callable[[int, int], nn.Module]  # (values in, values out) -> a network, which need not be invertible


class Brick(nn.Module):
    """Something invertible; without a forward of its own it changes nothing."""

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return x, x.new_zeros(x.shape[:1] + x.shape[2:])

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z


class Coupling(Brick):
    """One half of the channels scales and shifts the other (Dinh et al., "Real NVP", ICLR 2017)."""

    def __init__(self, channels: int, subnet: Subnet, clamp: float = 2.0, soft: Soft = "tanh") -> None:
        super().__init__()
        self.changed, self.clamp, self.soft = channels // 2, clamp, soft
        self.kept = channels - self.changed
        self.subnet = subnet(self.kept, 2 * self.changed)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        kept, changed = x.split([self.kept, self.changed], 1)
        log_scale, shift = self._affine(kept, condition)
        return torch.cat([kept, torch.addcmul(shift, changed, log_scale.exp())], 1), log_scale.sum(1)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        kept, changed = z.split([self.kept, self.changed], 1)
        log_scale, shift = self._affine(kept, condition)
        return torch.cat([kept, (changed - shift) * (-log_scale).exp()], 1)

    def _affine(self, kept: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        raw = self.subnet(kept) if condition is None else self.subnet(kept, condition)
        return scale_and_shift(raw, self.clamp, self.soft)


class JointCoupling(nn.Module):
    """Maps of several sizes at once: one half of the channels of all of them scales and shifts the other, and back.

    ``subnet`` makes, of the channels in and out of every map, a network from a list of maps to a list of maps.
    The first half of the channels is changed first, then the second. Unlike a brick it takes and gives a list, and
    ``log_det`` (B,) is of all maps together.
    """

    def __init__(
        self,
        channels: Sequence[int],
        subnet: Callable[[list[int], list[int]], nn.Module],
        clamp: float = 3.0,
        soft: Soft = "atan",
    ) -> None:
        super().__init__()
        self.clamp, self.soft = clamp, soft
        self.halves = [(c // 2, c - c // 2) for c in channels]
        first, second = ([half[k] for half in self.halves] for k in (0, 1))
        self.of_first = subnet(second, [2 * c for c in first])
        self.of_second = subnet(first, [2 * c for c in second])

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], Tensor]:
        first, second = self._split(maps)
        first, one = self._changed(first, self.of_first(second))
        second, two = self._changed(second, self.of_second(first))
        return [torch.cat(pair, 1) for pair in zip(first, second, strict=True)], one + two

    def inverse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        first, second = self._split(maps)
        second = self._restored(second, self.of_second(first))
        first = self._restored(first, self.of_first(second))
        return [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]

    def _split(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        parts = [m.split(half, 1) for m, half in zip(maps, self.halves, strict=True)]
        return [p[0] for p in parts], [p[1] for p in parts]

    def _changed(self, maps: list[Tensor], raw: list[Tensor]) -> tuple[list[Tensor], Tensor]:
        made, log_det = [], maps[0].new_zeros(len(maps[0]))
        for map_, affine in zip(maps, raw, strict=True):
            log_scale, shift = scale_and_shift(affine, self.clamp, self.soft)
            made.append(torch.addcmul(shift, map_, log_scale.exp()))
            log_det = log_det + log_scale.sum((1, 2, 3))
        return made, log_det

    def _restored(self, maps: list[Tensor], raw: list[Tensor]) -> list[Tensor]:
        pairs = [scale_and_shift(affine, self.clamp, self.soft) for affine in raw]
        return [(m - shift) * (-log_scale).exp() for m, (log_scale, shift) in zip(maps, pairs, strict=True)]


class Permutation(Brick):
    """Channels in a random order, fixed when it is made, so that the next coupling splits them differently."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x.index_select(1, self.order))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z.index_select(1, self.order.argsort())


class Rotation(Brick):
    """Rows turned by a random orthogonal matrix, fixed when it is made: every coupling sees mixtures of all values."""

    matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(channels, channels))
        self.register_buffer("matrix", q * r.diagonal().sign())  # the signs make all rotations equally likely

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x @ self.matrix)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z @ self.matrix.T


class Affine(Brick):
    """A learnt scale and offset per channel, which begin at 1 and 0.

    The scale is log(1 + exp(raw / 2)) / 5: it stays above 0, and a step of training moves it little.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.raw = nn.Parameter(torch.full((channels,), 2 * math.log(math.expm1(5))))
        self.offset = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        scale = self._scale()
        log_det = scale.log().sum().expand(x.shape[:1] + x.shape[2:])
        return torch.addcmul(_wide(self.offset, x), x, _wide(scale, x)), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return (z - _wide(self.offset, z)) / _wide(self._scale(), z)

    def _scale(self) -> Tensor:
        return 0.1 * F.softplus(self.raw, beta=0.5)


class Standard(Brick):
    """Every channel to mean 0 and deviation 1 over what was measured; nothing in it is trained."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, mean: Tensor, variance: Tensor) -> None:
        """Take the statistics (C,); a channel that hardly varies counts as if it varied a tenth of the average."""
        self.mean = mean.float()
        self.deviation = (variance + 0.01 * variance.mean() + 1e-12).sqrt().float()

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = -self.deviation.log().sum().expand(x.shape[:1] + x.shape[2:])
        return (x - _wide(self.mean, x)) / _wide(self.deviation, x), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z * _wide(self.deviation, z) + _wide(self.mean, z)


class Upsampling(Brick):
    """``factor``² channels become one of ``factor`` times the height and width; log_det is on the grid it took."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(x, self.factor), super().forward(x)[1]

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.pixel_unshuffle(z, self.factor)


class Flow(Brick):
    """Bricks one after the other, on one grid."""

    def __init__(self, bricks: Iterable[Brick]) -> None:
        super().__init__()
        self.bricks = nn.ModuleList(bricks)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = x.new_zeros(x.shape[:1] + x.shape[2:])
        for brick in self.bricks:
            x, more = brick(x, condition)
            log_det = log_det + more
        return x, log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        for brick in reversed(self.bricks):
            assert isinstance(brick, Brick)
            z = brick.inverse(z, condition)
        return z


class Convolutions(nn.Module):
    """Two convolutions; the condition's part of the first is computed once for all images.

    With ``norm``, the hidden values of each position are normalised (layer norm) before they are cut at 0.
    """

    def __init__(self, inside: int, outside: int, hidden: int, kernel: int, condition: int = 0, norm: bool = False):
        super().__init__()
        self.first = nn.Conv2d(inside, hidden, kernel, padding=kernel // 2)
        self.extra = nn.Conv2d(condition, hidden, kernel, padding=kernel // 2, bias=False) if condition else None
        self.norm = nn.LayerNorm(hidden) if norm else None
        self.last = nn.Conv2d(hidden, outside, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.extra is not None:
            hidden = hidden + self.extra(condition)
        if self.norm is not None:
            hidden = self.norm(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(F.relu(hidden))


class Perceptron(nn.Module):
    """Two linear layers over rows."""

    def __init__(self, inside: int, outside: int, hidden: int, condition: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(inside + condition, hidden)
        self.last = nn.Linear(hidden, outside)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = x if condition is None else torch.cat([x, condition], 1)
        return self.last(F.relu(self.first(x)))


def scale_and_shift(raw: Tensor, clamp: float, soft: Soft) -> tuple[Tensor, Tensor]:
    """Return (log_scale, shift) from a subnet's values: the log-scale is kept between -clamp and clamp.

    ``tanh`` begins slowly, at a tenth of the values; ``atan`` (Ardizzone et al., 2019) begins at 2/π of them.
    """
    if soft == "tanh":
        scale, shift = (0.1 * raw).chunk(2, 1)
        return clamp * torch.tanh(scale), shift
    scale, shift = raw.chunk(2, 1)
    return clamp * 2 / math.pi * torch.atan(scale / clamp), shift


def negative_log_likelihood(z: Tensor, log_det: Tensor) -> Tensor:
    """Return ½‖z‖² - log_det of each row or image, (B,): a standard Gaussian's, without its constant."""
    return z.square().sum(tuple(range(1, z.dim()))) / 2 - log_det.reshape(len(z), -1).sum(1)  # flat, maps are copied


def measure(bricks: Sequence[Standard], batches: Iterable[Sequence[Tensor]]) -> None:
    """Let each brick measure its own of the layers (B, C, h, w) that every batch brings, over all batches."""
    sums: list[list[Tensor]] = [[] for _ in bricks]
    for layers in batches:
        for sum_, layer in zip(sums, layers, strict=True):
            x = layer.double().transpose(0, 1).flatten(1)  # (C, B * h * w)
            more = torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)])
            sum_[:] = [sum_[0] + more] if sum_ else [more]
    for brick, ((count, total, squares),) in zip(bricks, sums, strict=True):
        mean = total / count
        brick.measure(mean, (squares / count - mean.square()).clamp_min(0))


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """Shape values of channels (C,) so that they go with rows or maps."""
    return values.view(-1, *[1] * (like.dim() - 2))
