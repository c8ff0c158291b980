"""Invertible layers that scale and shift each channel: learnt, or measured on training features."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.flows.invertible import InvertibleLayer, per_channel


class ChannelAffine(InvertibleLayer):
    """A learnt scale and offset per channel, initially 1 and 0.

    The scale is log(1 + exp(raw / 2)) / 5, so that it stays above 0 and changes slowly (FrEIA's global affine).
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
    """Standardises each channel with the mean and standard deviation of training features. It is not trained."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("deviation", torch.ones(channels))

    def measure(self, mean: Tensor, variance: Tensor) -> None:
        """Set mean and variance (C,). 1 % of the average variance is added, so that no channel is divided by 0."""
        self.mean = mean.float().to(self.mean.device)
        self.deviation = (variance + 0.01 * variance.mean() + 1e-12).sqrt().float().to(self.deviation.device)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_det = -self.deviation.log().sum().expand(x.shape[:1] + x.shape[2:])
        return (x - per_channel(self.mean, x)) / per_channel(self.deviation, x), log_det

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z * per_channel(self.deviation, z) + per_channel(self.mean, z)


def fit_standardisation(standards: Sequence[Standardisation], batches: Iterable[Sequence[Tensor]]) -> None:
    """Fit one standardisation per feature layer; each batch is a list of layers (B, C, h, w)."""
    sums: list[list[Tensor]] = [[] for _ in standards]
    for layers in batches:
        for sum_, layer in zip(sums, layers, strict=True):
            exact = (layer.cpu() if layer.device.type == "mps" else layer).double()  # mps has no float64
            x = exact.transpose(0, 1).flatten(1)  # (C, B * h * w)
            more = torch.stack([torch.full_like(x[:, 0], x.shape[1]), x.sum(1), x.square().sum(1)])
            sum_[:] = [sum_[0] + more] if sum_ else [more]
    for standard, ((count, total, squares),) in zip(standards, sums, strict=True):
        mean = total / count
        standard.measure(mean, (squares / count - mean.square()).clamp_min(0))
