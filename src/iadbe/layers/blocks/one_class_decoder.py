"""One-class bottleneck and decoder of reverse distillation: from a frozen encoder's layers to their reconstruction.

Paper: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, arXiv:2201.10703,
    section 3.3.
Differs:
    * The decoder follows any teacher. It mirrors the blocks of a ResNet. For other networks it has two basic residual
      blocks per layer, without a final ReLU, as layers with linear bottlenecks have negative values.
    * The embedding has twice the channels of the last layer.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.blocks.residual import he_initialised, residual_stage
from iadbe.layers.features.patches import concatenated
from iadbe.layers.features.region import masked
from iadbe.networks.backbone import Backbone


def flattened_cosine_loss(teacher: list[Tensor], student: list[Tensor], region: Tensor | None = None) -> Tensor:
    """Return the loss (): one minus the cosine of flattened maps (B, C * h * w), summed over layers, mean of images.

    Positions that do not count by ``region`` (B, H, W) bool are left out of the maps.
    """
    pairs = ((masked(t, region), masked(s, region)) for t, s in zip(teacher, student, strict=True))
    return torch.stack([1 - F.cosine_similarity(t.flatten(1), s.flatten(1)).mean() for t, s in pairs]).sum()


class OneClassDecoder(nn.Module):
    """One-class bottleneck (MFF and OCE) and decoder: from the teacher's layers to their reconstruction."""

    renamed_tensors = {"gather": "fusion", "embed": "embedding"}

    def __init__(self, teacher: Backbone) -> None:
        super().__init__()
        channels, strides = list(teacher.channels), list(teacher.strides)
        # of each layer: blocks, inner width, whether it ends in a ReLU
        shapes = [_blocks_of(teacher.network, layer) for layer in teacher.layers]
        self.fusion = nn.ModuleList([_downsampling(channels[i:], strides[i:]) for i in range(len(channels))])
        blocks, inner = shapes[0][0], 2 * shapes[-1][1]
        self.embedding = residual_stage(len(channels) * channels[-1], 2 * channels[-1], blocks, "halve", inner)
        self.decoder = nn.ModuleList()
        before, stride = 2 * channels[-1], 2 * strides[-1]
        # the authors' deepest stage has as many blocks as the finest layer
        depths = [blocks for blocks, _, _ in shapes]
        for after, coarse, (_, inner, rectified), blocks in zip(
            channels[::-1], strides[::-1], shapes[::-1], depths, strict=True
        ):
            doublings = max(0, round(math.log2(stride / coarse)))
            wider = [residual_stage(before, before, 1, "double", inner) for _ in range(doublings - 1)]
            last = residual_stage(before, after, blocks, "double" if doublings else "keep", inner, rectified)
            self.decoder.append(nn.Sequential(*wider, last))
            before, stride = after, coarse

    def forward(self, teacher: list[Tensor]) -> list[Tensor]:
        """Return reconstructions of the layers (B, C, h, w), the finest first."""
        fused = [down(features) for down, features in zip(self.fusion, teacher, strict=True)]
        x = self.embedding(concatenated(fused[::-1], "bilinear"))
        reconstructed = []
        for up, like in zip(self.decoder, reversed(teacher), strict=True):
            x = up(x)
            if x.shape[-2:] != like.shape[-2:]:  # on odd grids the half was rounded
                x = F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=False)
            reconstructed.append(x)
        return reconstructed[::-1]


def _downsampling(channels: list[int], strides: list[int]) -> nn.Sequential:
    """Make convolutions from the grid and channels of the first of some layers to those of the last."""
    parts: list[nn.Module] = []
    for i in range(1, len(channels)):
        before = channels[i - 1]
        for _ in range(max(1, round(math.log2(strides[i] / strides[i - 1])))):
            halve = 1 + (strides[i] > strides[i - 1])
            convolution = he_initialised(nn.Conv2d(before, channels[i], 3, halve, 1, bias=False))
            parts += [convolution, nn.BatchNorm2d(channels[i]), nn.ReLU(inplace=True)]
            before = channels[i]
    return nn.Sequential(*parts)


def _blocks_of(network: nn.Module, layer: int) -> tuple[int, int, bool]:
    """Return a layer's blocks, its bottlenecks' inner width (0: basic blocks), and whether it ends in a ReLU."""
    blocks = getattr(network, f"layer{layer}", None)  # a ResNet's name
    if not isinstance(blocks, nn.Sequential) or not hasattr(blocks[-1], "conv2"):
        return 2, 0, False
    last: Any = blocks[-1]
    return len(blocks), last.conv2.out_channels if hasattr(last, "conv3") else 0, True
