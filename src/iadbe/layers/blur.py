"""From a coarse grid of scores to a smooth map at the size of the picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def upsampled(scores: Tensor, size: int | tuple[int, int], sigma: float = 4.0) -> Tensor:
    """Bring scores (B, h, w) to the picture's size, bilinear, and smooth them: (B, H, W)."""
    size = (size, size) if isinstance(size, int) else size
    maps = F.interpolate(scores[:, None], size=size, mode="bilinear", align_corners=False)
    return gaussian_blur(maps, sigma)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float) -> Tensor:
    """Smooth (B, C, H, W) with a Gaussian cut at four sigma, mirrored at the border; sigma 0 changes nothing."""
    if sigma <= 0:
        return maps
    radius = min(int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    x = torch.arange(-radius, radius + 1, dtype=maps.dtype, device=maps.device)
    kernel = torch.exp(-0.5 * (x / sigma) ** 2)
    kernel = kernel / kernel.sum()
    channels = maps.shape[1]
    for axis in (2, 3):
        shape, padding = [1, 1, 1, 1], [0, 0, 0, 0]
        shape[axis] = -1
        padding[2 * (3 - axis) : 2 * (3 - axis) + 2] = radius, radius
        weight = kernel.view(shape).expand(channels, *([1, -1, 1] if axis == 2 else [1, 1, -1]))
        maps = F.conv2d(F.pad(maps, padding, mode="reflect"), weight.contiguous(), groups=channels)
    return maps
