"""Looking at several distances at once: convolutions with holes of different sizes, side by side.

Paper: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, 1706.05587 (image-level
    features and 3 x 3 convolutions of several rates, side by side), without its 1 x 1 branch and with a 3 x 3 fusion,
    as in Zhang et al., "DeSTSeg", CVPR 2023, 2211.11317.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ASPP(nn.Module):
    """From (B, before, h, w) to (B, after, h, w); in training a batch has two images at least."""

    def __init__(self, before: int, after: int, rates: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.whole = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(before, after, 1))
        self.around = nn.ModuleList([conv_norm_relu(before, after, 3, rate) for rate in rates])
        self.fuse = conv_norm_relu((1 + len(rates)) * after, after, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Put what is seen at every distance, and in the whole image, together."""
        whole = self.whole(x).expand(-1, -1, *x.shape[-2:])
        return self.fuse(torch.cat([whole, *(look(x) for look in self.around)], 1))


def conv_norm_relu(before: int, after: int, side: int, rate: int = 1) -> nn.Sequential:
    """Make a convolution that keeps the grid, with holes of ``rate``, then its normalisation and a ReLU."""
    convolution = nn.Conv2d(before, after, side, padding=side // 2 * rate, dilation=rate, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
