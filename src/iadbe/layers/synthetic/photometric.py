"""Photometric augmentation of training images: brightness, and black and white dots."""

from __future__ import annotations

import torch
from torch import Tensor

CHANCE = 0.3  # of each of the two changes, independently
BRIGHTNESS = 0.1  # largest relative change
DOTS = 0.015  # largest share of white pixels, and of black ones


def brightness_and_dots(image: Tensor, generator: torch.Generator) -> Tensor:
    """Change the brightness of some images (B, 3, H, W) in [0, 1], and set some pixels of some to black or white."""
    count, _, height, width = image.shape
    changed = torch.rand(2, count, 1, 1, 1, generator=generator) < CHANCE
    factor = 1 + (torch.rand(count, 1, 1, 1, generator=generator) * 2 - 1) * BRIGHTNESS * changed[0]
    share = DOTS * torch.rand(count, 1, 1, 1, generator=generator)
    noise = torch.rand(count, 1, height, width, generator=generator)
    white, black = (noise < share) & changed[1], (noise > 1 - share) & changed[1]
    bright = (image * factor.to(image.device)).clamp(0, 1)
    return bright.masked_fill(white.to(image.device), 1).masked_fill(black.to(image.device), 0)
