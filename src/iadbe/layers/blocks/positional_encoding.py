"""Where a position lies, as a vector of sines and cosines."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinusoidal_encoding(dim: int, height: int, width: int) -> Tensor:
    """Return (dim, height, width): the first half of the values tells the column, the second the row.

    Sines and cosines take turns; their wavelengths grow geometrically from 2π towards 20000π positions (Vaswani et
    al., 2017). ``dim`` is a multiple of 4.
    """
    if dim < 4 or dim % 4:
        raise ValueError(f"a position's code has a multiple of 4 values, not {dim}")
    half = dim // 2
    column, row = (_line(half, side) for side in (width, height))
    return torch.cat([column[:, None, :].expand(half, height, width), row[:, :, None].expand(half, height, width)])


def _line(dim: int, side: int) -> Tensor:
    """Return (dim, side)."""
    frequency = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000) / dim))
    angle = frequency[:, None] * torch.arange(side)
    return torch.stack([angle.sin(), angle.cos()], 1).flatten(0, 1)
