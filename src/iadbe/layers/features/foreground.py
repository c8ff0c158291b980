"""What stands out from the ground in a depth map, and the depth of it as an input of networks.

Paper: Rudolph et al., "Asymmetric Student-Teacher Networks for Industrial Anomaly Detection", WACV 2023, 2210.07829,
    section 3.3 and the authors' code. Depth is (B, 1, H, W), nan where nothing was measured.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

CORNER = 2  # pixels of the corners that the ground passes through
DILATION = 8  # pixels, on the grid of the relative depth


def gaps_filled(depth: Tensor, times: int = 3) -> Tensor:
    """Set missing pixels that touch measured ones to the mean of these, ``times`` times: (B, 1, H, W)."""
    for _ in range(times):
        measured = depth.isfinite()
        kernel = depth.new_ones(1, 1, 3, 3)
        count = F.conv2d(measured.to(depth.dtype), kernel, padding=1)
        total = F.conv2d(depth.masked_fill(~measured, 0), kernel, padding=1)
        depth = torch.where(measured, depth, total / count)  # 0 / 0 stays nan
    return depth


def ground(depth: Tensor) -> Tensor:
    """Return the ground (B, 1, H, W), interpolated between the means of the four corners.

    A corner in which nothing was measured takes the mean of the others; if none was, the ground is nan.
    """
    ends = (slice(None, CORNER), slice(-CORNER, None))
    corners = torch.stack([depth[:, :, rows, columns].flatten(1).nanmean(1) for rows in ends for columns in ends], 1)
    corners = torch.where(corners.isnan(), corners.nanmean(1, keepdim=True), corners)
    size = depth.shape[-2:]
    return F.interpolate(corners.view(-1, 1, 2, 2), size=size, mode="bilinear", align_corners=True)


def relative_depth(depth: Tensor, size: tuple[int, int], threshold: float) -> tuple[Tensor, Tensor]:
    """Return (depth, mask) of the foreground at a size, each (B, 1, *size).

    The foreground is farther than ``threshold`` from the ground. Its depth is relative to its mean and in hundredths of
    the unit (centimetres for metres), 0 elsewhere. The mask is 1 within the foreground, dilated, and 0 elsewhere.
    Without any ground, all that was measured is foreground.
    """
    depth = gaps_filled(depth)
    below = ground(depth)
    front = depth.isfinite() & (((depth - below).abs() > threshold) | below.isnan())
    count = front.sum((1, 2, 3), keepdim=True)
    values = depth.masked_fill(~front, 0)
    mean = values.sum((1, 2, 3), keepdim=True) / count.clamp_min(1)
    relative = torch.where(front, depth - mean, torch.zeros_like(depth)) * 100
    small = F.interpolate(relative, size=size, mode="bilinear", align_corners=False)
    mask = (F.interpolate(front.to(depth.dtype), size=size, mode="bilinear", align_corners=False) > 0).to(depth.dtype)
    before = DILATION // 2
    return small, F.max_pool2d(F.pad(mask, (before, DILATION - 1 - before) * 2), DILATION, stride=1)
