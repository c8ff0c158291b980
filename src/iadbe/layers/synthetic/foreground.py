"""Where the object of an image is, so that synthetic defects do not lie in the background.

Paper: Schlüter et al., "Natural Synthetic Anomalies", ECCV 2022, 2109.15222 (pixels unlike a known brightness of the
    background); Otsu, "A Threshold Selection Method from Gray-Level Histograms", 1979 (without one).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from iadbe.layers.synthetic.photometric import grey

LEVELS = 256
BORDER = 0.9  # share of the outermost pixels that must be of one class for this to be the background
SMALLEST = 0.05  # share of the image that an object covers at least, and leaves free at least
WINDOW = 7  # side of the median filter of masks


def unlike_background(image: Tensor, brightness: float, tolerance: float) -> Tensor:
    """Return where the mean of the channels differs from the background's brightness by more than ``tolerance``.

    Both are levels from 0 to 255. Images are (B, 3, H, W) in [0, 1], masks (B, 1, H, W), bool, median-filtered.
    """
    level = image.mean(1, keepdim=True) * 255
    return majority((level - brightness).abs() > tolerance, WINDOW)


def object_mask(image: Tensor) -> Tensor:
    """Return the object (B, 1, H, W), bool, of images (B, 3, H, W) in [0, 1]; everything, where none stands out.

    Otsu's threshold splits the grey levels. The class of at least 90 % of the outermost pixels is the background; holes
    that it does not reach from there are object. If there is no such class, or it leaves less than 5 % or more than
    95 % of the image, or less than half of the object is in one piece, the whole image is the object.
    """
    level = grey(image)
    bright = level > otsu_threshold(level.flatten(1)).view(-1, 1, 1, 1)
    edge = torch.cat([bright[..., 0, :], bright[..., -1, :], bright[..., :, 0], bright[..., :, -1]], 2)[:, 0]
    bright_share = edge.float().mean(1).view(-1, 1, 1, 1)
    mask = majority(torch.where(bright_share > 0.5, ~bright, bright), WINDOW)
    clear = ((bright_share <= 1 - BORDER) | (bright_share >= BORDER)).flatten().tolist()
    pieces = [_in_one_piece(one[0].cpu().numpy()) if sure else None for one, sure in zip(mask, clear, strict=True)]
    whole = np.ones(mask.shape[-2:], bool)
    found = np.stack([whole if piece is None else piece for piece in pieces])
    return torch.from_numpy(found)[:, None].to(image.device)


def _in_one_piece(mask: np.ndarray) -> np.ndarray | None:
    """Return a mask (H, W), bool, with its holes filled; None if it is too small, too large or in many pieces."""
    filled = ndimage.binary_fill_holes(mask)
    regions, _ = ndimage.label(filled, np.ones((3, 3)))
    area, largest = filled.sum(), np.bincount(regions.ravel())[1:].max(initial=0)
    fits = SMALLEST <= area / filled.size <= 1 - SMALLEST and largest >= area / 2
    return filled if fits else None


def majority(mask: Tensor, side: int) -> Tensor:
    """Return the median filter of masks (B, 1, H, W), bool, in windows of an odd ``side``; the border is repeated."""
    around = F.pad(mask.float(), [side // 2] * 4, mode="replicate")
    return F.avg_pool2d(around, side, stride=1) > 0.5


def otsu_threshold(values: Tensor) -> Tensor:
    """Return the level (B,) of each row (B, N) in [0, 1] that maximises the variance between the levels split by it."""
    level = (values * (LEVELS - 1)).round().long().clamp(0, LEVELS - 1).cpu()  # not every device has float64
    counts = torch.zeros(len(values), LEVELS, dtype=torch.float64)
    counts.scatter_add_(1, level, torch.ones_like(level, dtype=torch.float64))
    share = (counts / values.shape[1]).cumsum(1)
    weighted = counts / values.shape[1] * torch.arange(LEVELS)
    below = weighted.cumsum(1)
    between = (below[:, -1:] * share - below) ** 2 / (share * (1 - share)).clamp(min=1e-12)
    best = between.masked_fill((share <= 0) | (share >= 1 - 1e-12), -1).argmax(1)
    return ((best + 0.5) / (LEVELS - 1)).to(values)
