"""Square neighbourhoods of positions without their centres, gathered for any selection of positions."""

from __future__ import annotations

import torch
from torch import Tensor


def neighbourhoods(padded: Tensor, which: Tensor, reach: int) -> Tensor:
    """Return the values around some positions, without the positions themselves: (n, ((2 reach + 1)² - 1) C).

    Args:
        padded: features (B, h + 2 reach, w + 2 reach, C), padded on each side
        which: numbers (n,) of positions, row by row, image after image
        reach: positions to each side
    """
    side, row = 2 * reach + 1, padded.shape[2]
    height, width = padded.shape[1] - side + 1, row - side + 1
    image, place = which // (height * width), which % (height * width)
    corner = image * padded.shape[1] * row + place // width * row + place % width
    steps = torch.arange(side, device=which.device)
    offsets = (steps[:, None] * row + steps).flatten()
    offsets = torch.cat([offsets[: side * side // 2], offsets[side * side // 2 + 1 :]])
    return padded.flatten(0, 2)[corner[:, None] + offsets].flatten(1)
