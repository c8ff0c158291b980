"""Affine couplings of normalizing flows: one half of the channels scales and shifts the other.

Paper: Dinh et al., "Density estimation using Real NVP", ICLR 2017, 1605.08803, equations 7 and 8; Ardizzone et al.,
    "Guided Image Generation with Conditional Invertible Neural Networks", 2019, 1907.02392 (the clamp with arctan).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from iadbe.layers.features.region import masked
from iadbe.layers.flows.invertible import InvertibleLayer

SoftClamp = Literal["tanh", "atan"]
Subnet = Callable[[int, int], nn.Module]  # (channels in, channels out) -> a network


class AffineCoupling(InvertibleLayer):
    """The first half of the channels gives scale and shift for the second half, of rows or maps."""

    def __init__(self, channels: int, subnet: Subnet, clamp: float = 2.0, soft: SoftClamp = "tanh") -> None:
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


class GlowCoupling(InvertibleLayer):
    """Both halves of the channels change: the second gives scale and shift of the first, then the first of the second.

    ``subnet(channels_in, channels_out)`` makes a network of a half, and of the condition if one is given.
    """

    def __init__(self, channels: int, subnet: Subnet, clamp: float = 1.9, soft: SoftClamp = "atan") -> None:
        super().__init__()
        self.clamp, self.soft = clamp, soft
        self.halves = (channels // 2, channels - channels // 2)
        first, second = self.halves
        self.of_first, self.of_second = subnet(second, 2 * first), subnet(first, 2 * second)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        first, second = x.split(self.halves, 1)
        scale, shift = self._affine(self.of_first, second, condition)
        first = torch.addcmul(shift, first, scale.exp())
        other, offset = self._affine(self.of_second, first, condition)
        return torch.cat([first, torch.addcmul(offset, second, other.exp())], 1), scale.sum(1) + other.sum(1)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        first, second = z.split(self.halves, 1)
        scale, shift = self._affine(self.of_second, first, condition)
        second = (second - shift) * (-scale).exp()
        scale, shift = self._affine(self.of_first, second, condition)
        return torch.cat([(first - shift) * (-scale).exp(), second], 1)

    def _affine(self, subnet: nn.Module, half: Tensor, condition: Tensor | None) -> tuple[Tensor, Tensor]:
        raw = subnet(half) if condition is None else subnet(half, condition)
        return scale_and_shift(raw, self.clamp, self.soft)


class MultiScaleCoupling(nn.Module):
    """A coupling over maps of several scales at once.

    The second halves of the channels of all maps change the first halves, then the first halves change the second.
    ``subnet(channels_in, channels_out)`` makes a network from a list of maps to a list of maps. Input and output are
    lists of maps, and ``log_det`` (B,) is that of all maps together, at the positions of ``region`` (B, H, W) alone if
    one is given.
    """

    def __init__(
        self,
        channels: Sequence[int],
        subnet: Callable[[list[int], list[int]], nn.Module],
        clamp: float = 3.0,
        soft: SoftClamp = "atan",
    ) -> None:
        super().__init__()
        self.clamp, self.soft = clamp, soft
        self.halves = [(c // 2, c - c // 2) for c in channels]
        first, second = ([half[k] for half in self.halves] for k in (0, 1))
        self.of_first = subnet(second, [2 * c for c in first])
        self.of_second = subnet(first, [2 * c for c in second])

    def forward(self, maps: Sequence[Tensor], region: Tensor | None = None) -> tuple[list[Tensor], Tensor]:
        first, second = self._split(maps)
        first, one = self._changed(first, self.of_first(second), region)
        second, two = self._changed(second, self.of_second(first), region)
        return [torch.cat(pair, 1) for pair in zip(first, second, strict=True)], one + two

    def inverse(self, maps: Sequence[Tensor]) -> list[Tensor]:
        first, second = self._split(maps)
        second = self._restored(second, self.of_second(first))
        first = self._restored(first, self.of_first(second))
        return [torch.cat(pair, 1) for pair in zip(first, second, strict=True)]

    def _split(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        parts = [m.split(half, 1) for m, half in zip(maps, self.halves, strict=True)]
        return [p[0] for p in parts], [p[1] for p in parts]

    def _changed(self, maps: list[Tensor], raw: list[Tensor], region: Tensor | None) -> tuple[list[Tensor], Tensor]:
        made, log_det = [], maps[0].new_zeros(maps[0].shape[0])
        for map_, affine in zip(maps, raw, strict=True):
            log_scale, shift = scale_and_shift(affine, self.clamp, self.soft)
            made.append(torch.addcmul(shift, map_, log_scale.exp()))
            log_det = log_det + masked(log_scale, region).sum((1, 2, 3))
        return made, log_det

    def _restored(self, maps: list[Tensor], raw: list[Tensor]) -> list[Tensor]:
        pairs = [scale_and_shift(affine, self.clamp, self.soft) for affine in raw]
        return [(m - shift) * (-log_scale).exp() for m, (log_scale, shift) in zip(maps, pairs, strict=True)]


def scale_and_shift(raw: Tensor, clamp: float, soft: SoftClamp) -> tuple[Tensor, Tensor]:
    """Return (log_scale, shift) from the output of a subnet; the log-scale lies between -clamp and clamp.

    ``tanh`` scales the output by 0.1 first (FrEIA's all-in-one block); ``atan`` is 2/π · clamp · arctan(s / clamp).
    A subnet may compute in 16 bits; both are float32 at least, since their exponential and their sum over a whole map
    lose digits in bfloat16 and overflow in float16.
    """
    if raw.dtype in (torch.bfloat16, torch.float16):
        raw = raw.float()
    if soft == "tanh":
        scale, shift = (0.1 * raw).chunk(2, 1)
        return clamp * torch.tanh(scale), shift
    scale, shift = raw.chunk(2, 1)
    return clamp * 2 / math.pi * torch.atan(scale / clamp), shift
