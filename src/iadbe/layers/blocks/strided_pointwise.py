"""1 x 1 convolutions that halve or double the grid, of any number of channels.

With fewer than 8 channels in channels-last order, the gradient of torch's own writes beyond its memory on processors
with AVX2 (seen in torch 2.14). These have the same weights and values, and compute a plain 1 x 1 convolution: of every
second position, or with zeros put between the positions afterwards.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, channels_last, nn

NARROW = 8  # channels, below which torch's own is not used


class HalvingPointwise(nn.Conv2d):
    """A convolution of kernel 1 and stride 2, without padding and bias: (B, C, h, w) to (B, C', ⌈h/2⌉, ⌈w/2⌉)."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 1, 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(self.in_channels, self.out_channels) >= NARROW:
            return super().forward(x)
        return F.conv2d(x[..., ::2, ::2], self.weight)


class DoublingPointwise(nn.ConvTranspose2d):
    """A transposed convolution of kernel 1 and stride 2 without bias: (B, C, h, w) to (B, C', 2h, 2w).

    Three of four values are zeros.
    """

    def __init__(self, before: int, after: int) -> None:
        super().__init__(before, after, 1, 2, output_padding=1, bias=False)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        values = F.conv2d(x, self.weight.transpose(0, 1))
        batch, channels, height, width = values.shape
        spread = values.new_zeros(batch, channels, 2 * height, 2 * width)
        spread[..., ::2, ::2] = values
        return spread.contiguous(memory_format=channels_last)
