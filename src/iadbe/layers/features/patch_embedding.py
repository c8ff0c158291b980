"""The patch embedding of PatchCore: the neighbourhood of a position in several layers, pooled to a fixed size.

Paper: Roth et al., CVPR 2022, 2106.08265; section 3.1. SimpleNet and others use it with 1536 values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean


def patch_embedding(layers: Sequence[Tensor], dim: int = 0, side: int = 3) -> Tensor:
    """Return one vector per position of the first layer's grid: (B, D, h, w).

    With ``dim`` 0, the means over ``side`` x ``side`` positions of all layers are concatenated. Otherwise the
    ``side``² C values of each layer's neighbourhood are pooled to ``dim`` values, and the concatenated layers to
    ``dim`` values again (adaptive average pooling).
    """
    if not dim:
        return concatenated([neighbourhood_mean(f, side) for f in layers], "bilinear")
    size = layers[0].shape[-2:]
    pooled = [F.interpolate(_pooled(f, dim, side), size, mode="bilinear", align_corners=False) for f in layers]
    rows = F.adaptive_avg_pool1d(flattened(torch.cat(pooled, 1)), dim)
    return rows.view(-1, *size, dim).permute(0, 3, 1, 2)


def _pooled(features: Tensor, dim: int, side: int) -> Tensor:
    """Average the ``side``² C values around every position (B, C, h, w) to (B, dim, h, w)."""
    images, channels, height, width = features.shape
    around = F.unfold(features, side, padding=side // 2).transpose(1, 2)  # (B, h * w, C * side²)
    rows = F.adaptive_avg_pool1d(around.reshape(-1, channels * side**2), dim)
    return rows.view(images, height, width, dim).permute(0, 3, 1, 2)
