"""Atrous spatial pyramid pooling (ASPP): parallel dilated convolutions with different rates.

Paper: Chen et al., "Rethinking Atrous Convolution for Semantic Image Segmentation", 2017, 1706.05587 (image-level
    features and 3 x 3 convolutions of several rates, side by side), without its 1 x 1 branch and with a 3 x 3 fusion,
    as in Zhang et al., "DeSTSeg", CVPR 2023, 2211.11317.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ASPP(nn.Module):
    """From (B, before, h, w) to (B, after, h, w). In training a batch has at least two images.

    Image-level pooling and one 3 x 3 convolution per dilation rate run in parallel; a 3 x 3 convolution fuses them.
    """

    renamed_tensors = {"whole": "image_pooling", "around": "atrous", "fuse": "fusion"}

    def __init__(self, before: int, after: int, rates: Sequence[int] = (6, 12, 18)) -> None:
        super().__init__()
        self.image_pooling = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_relu(before, after, 1))
        self.atrous = nn.ModuleList([conv_norm_relu(before, after, 3, rate) for rate in rates])
        self.fusion = conv_norm_relu((1 + len(rates)) * after, after, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, h, w) to (B, after, h, w)."""
        pooled = self.image_pooling(x).expand(-1, -1, *x.shape[-2:])
        return self.fusion(torch.cat([pooled, *(convolution(x) for convolution in self.atrous)], 1))


def conv_norm_relu(before: int, after: int, side: int, rate: int = 1) -> nn.Sequential:
    """Make a convolution of ``side`` x ``side`` with dilation ``rate`` that keeps the grid, a batch norm and a ReLU."""
    convolution = nn.Conv2d(before, after, side, padding=side // 2 * rate, dilation=rate, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True))
