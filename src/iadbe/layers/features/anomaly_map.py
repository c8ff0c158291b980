"""Anomaly maps: patch scores, upsampled to the size of the image and smoothed by a Gaussian.

Where only some positions count, a pixel is the mean of those alone, weighted as the interpolation and the Gaussian do.

Paper: Knutsson and Westin, "Normalized and Differential Convolution", CVPR 1993, equation 5.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.features.region import at_grid, average_pooled

LEAST = 1e-6  # weight of the positions that count, below which a pixel is beyond their reach


def upsampled(
    scores: Tensor, size: int | tuple[int, int], sigma: float = 4.0, radius: int = 0, region: Tensor | None = None
) -> Tensor:
    """Return scores (B, h, w) upsampled to ``size`` (H, W), bilinear, and smoothed: (B, H, W).

    ``sigma`` is the standard deviation of the Gaussian in pixels of the result; 0 does not smooth. ``radius`` is where
    it is truncated, in pixels; 0: at 4 ``sigma``. Scores that do not count by ``region`` (B, H', W') bool reach no
    pixel; pixels that no other score reaches get the mean of those that count.
    """
    height, width = (size, size) if isinstance(size, int) else size

    def smooth(maps: Tensor) -> Tensor:
        large = F.interpolate(maps, size=(height, width), mode="bilinear", align_corners=False)
        return gaussian_blur(large, sigma, radius)

    return _of_what_counts(smooth, scores[:, None], region)[:, 0]


def gaussian_blur(maps: Tensor, sigma: float, radius: int = 0, region: Tensor | None = None) -> Tensor:
    """Smooth (B, C, H, W), or (B, H, W), with a Gaussian, mirrored at the border; ``sigma`` 0 changes nothing.

    It is truncated at ``radius`` pixels; 0: at 4 ``sigma``. ``region`` is as in :func:`upsampled`.
    """
    if sigma <= 0:
        return maps
    if region is not None:
        own = maps if maps.dim() == 4 else maps[:, None]
        return _of_what_counts(lambda some: gaussian_blur(some, sigma, radius), own, region).view_as(maps)
    radius = min(radius or int(4 * sigma + 0.5), min(maps.shape[-2:]) - 1)
    down, across = (blur_matrix(side, sigma, radius, maps) for side in maps.shape[-2:])
    return down @ maps @ across.T


def blur_matrix(side: int, sigma: float, radius: int, like: Tensor) -> Tensor:
    """Return the matrix (side, side) of a Gaussian blur along one axis, mirrored at the ends.

    Row i holds the weights of position i. On a CPU the product of matrices blurs 256 x 256 values ten times faster
    than a convolution.
    """
    reach = torch.arange(-radius, radius + 1, device=like.device)
    weight = torch.exp(-0.5 * (reach.to(like.dtype) / sigma) ** 2)
    where = (torch.arange(side, device=like.device)[:, None] + reach).abs()  # (side, 2 * radius + 1)
    where = torch.where(where < side, where, 2 * (side - 1) - where)
    matrix = torch.zeros(side, side, dtype=like.dtype, device=like.device)
    return matrix.scatter_add_(1, where, (weight / weight.sum()).expand(side, -1))


def _of_what_counts(smooth: Callable[[Tensor], Tensor], maps: Tensor, region: Tensor | None) -> Tensor:
    """Apply a linear ``smooth`` to maps (B, C, h, w) as a normalised convolution over the positions that count."""
    counts = at_grid(region, (maps.shape[-2], maps.shape[-1]))
    if counts is None:
        return smooth(maps)
    own = counts[:, None].expand_as(maps)
    weight, total = smooth(own.to(maps)), smooth(maps.masked_fill(~own, 0))
    mean = average_pooled(maps, region)[:, :, None, None]
    return torch.where(weight > LEAST, total / weight.clamp(min=LEAST), mean)
