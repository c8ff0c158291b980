"""PatchCore's embedding of a position: its neighbourhood in several layers, averaged to a given number of values.

Paper: Roth et al., CVPR 2022, 2106.08265; SimpleNet and others take it over with 1536 values.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean


def patch_embedding(layers: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Return one vector per position of the first layer's grid: (B, D, h, w).

    With ``dim`` 0 the layers' means over 3 x 3 positions are stacked as they are; else the 9 C values of each layer's
    neighbourhood are averaged to ``dim`` values, and the layers' together to ``dim`` again.
    """
    if not dim:
        return concatenated([neighbourhood_mean(f) for f in layers], "bilinear")
    size = layers[0].shape[-2:]
    pooled = [F.interpolate(_pooled(f, dim), size, mode="bilinear", align_corners=False) for f in layers]
    rows = F.adaptive_avg_pool1d(flattened(torch.cat(pooled, 1)), dim)
    return rows.view(-1, *size, dim).permute(0, 3, 1, 2)


def _pooled(features: Tensor, dim: int) -> Tensor:
    """Average the 9 C values around every position (B, C, h, w) to (B, dim, h, w)."""
    images, channels, height, width = features.shape
    around = F.unfold(features, 3, padding=1).transpose(1, 2)  # (B, h * w, C * 9)
    rows = F.adaptive_avg_pool1d(around.reshape(-1, channels * 9), dim)
    return rows.view(images, height, width, dim).permute(0, 3, 1, 2)
