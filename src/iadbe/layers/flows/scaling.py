"""Invertible layers that scale and shift each channel: learnt, or measured on training features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.flows.invertible import InvertibleLayer, per_channel


class ChannelAffine(InvertibleLayer):
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
        return torch.addcmul(per_channel(self.offset, x), x, per_channel(scale, x)), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return (z - per_channel(self.offset, z)) / per_channel(self._scale(), z)

    def _scale(self) -> Tensor:
        return 0.1 * F.softplus(self.raw, beta=0.5)


class Standardisation(InvertibleLayer):
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
        return (x - per_channel(self.mean, x)) / per_channel(self.deviation, x), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z * per_channel(self.deviation, z) + per_channel(self.mean, z)


def fit_standardisation(bricks: Sequence[Standardisation], batches: Iterable[Sequence[Tensor]]) -> None:
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
