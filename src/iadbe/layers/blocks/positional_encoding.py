"""Sinusoidal positional encoding of a grid.

Paper: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, 1706.03762, section 3.5.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_encoding(dim: int, height: int, width: int) -> Tensor:
    """Return (dim, height, width): the first half of the values encodes the column, the second half the row.

    Sines and cosines alternate; their wavelengths grow geometrically from 2π towards 20000π positions. ``dim`` is a
    multiple of 4.
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"a positional encoding has a multiple of 4 values, not {dim}")
    half = dim // 2
    column, row = (_line(half, side) for side in (width, height))
    return torch.cat([column[:, None, :].expand(half, height, width), row[:, :, None].expand(half, height, width)])


def _line(dim: int, side: int) -> Tensor:
    """Return (dim, side)."""
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angle = frequency[:, None] * torch.arange(side)
    return torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)
