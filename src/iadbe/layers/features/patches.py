"""Patch features: the layers of a backbone as one feature vector per position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, cat


def concatenated(layers: Sequence[Tensor], mode: Literal["nearest", "bilinear"] = "nearest") -> Tensor:
    """Resize every layer to the grid of the first and concatenate the channels: (B, sum of C, h, w).

    ``nearest`` repeats values as PaDiM and SPADE do, ``bilinear`` interpolates as PatchCore does.
    """
    size = layers[0].shape[-2:]
    options = {} if mode == "nearest" else {"align_corners": False}
    same = [f if f.shape[-2:] == size else F.interpolate(f, size=size, mode=mode, **options) for f in layers]
    return cat(same, 1)


def neighbourhood_mean(features: Tensor, size: int = 3) -> Tensor:
    """Return the mean over the ``size`` x ``size`` neighbourhood of each position of (B, C, h, w), zero-padded."""
    return F.avg_pool2d(features, size, stride=1, padding=size // 2) if size > 1 else features


def flattened(features: Tensor) -> Tensor:
    """Return (B, C, h, w) as rows (B * h * w, C), position after position."""
    return features.permute(0, 2, 3, 1).reshape(-1, features.shape[1])
