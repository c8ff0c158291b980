"""Boxes and masks of an object detector as an anomaly map, and masks as the boxes that it trains on.

The map of an image is, at each pixel, the highest confidence of the boxes or masks that cover it; 0 where none does.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.ndimage import find_objects, label
from torch import Tensor

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def box_map(boxes: Tensor, confidence: Tensor, height: int, width: int) -> Tensor:
    """Return the map (H, W) of boxes (N, 4): x and y of two corners, in pixels, with confidences (N,) in [0, 1].

    A pixel belongs to a box that covers its centre.
    """
    x = torch.arange(width, device=boxes.device) + 0.5
    y = torch.arange(height, device=boxes.device) + 0.5
    across = (x >= boxes[:, 0, None]) & (x <= boxes[:, 2, None])  # (N, W)
    down = (y >= boxes[:, 1, None]) & (y <= boxes[:, 3, None])  # (N, H)
    return mask_map(down[:, :, None] & across[:, None, :], confidence)


def mask_map(masks: Tensor, confidence: Tensor) -> Tensor:
    """Return the map (H, W) of masks (N, H, W), bool or 0 and 1, with confidences (N,) in [0, 1]."""
    if not len(masks):
        return confidence.new_zeros(masks.shape[1:])
    return (masks.to(confidence.dtype) * confidence[:, None, None]).amax(0)


def regions_of(mask: np.ndarray) -> list[tuple[tuple[float, float, float, float], np.ndarray]]:
    """Return the 8-connected regions of a mask (H, W) bool: the box, as shares of width and height, and its pixels.

    A box is (centre x, centre y, width, height), as YOLO's label files have it; the pixels are (H, W) bool.
    """
    numbered, _ = label(mask, EIGHT_NEIGHBOURS)
    height, width = mask.shape
    found = []
    for number, (rows, columns) in enumerate(find_objects(numbered), 1):
        centre_x, centre_y = (columns.start + columns.stop) / 2, (rows.start + rows.stop) / 2
        size_x, size_y = columns.stop - columns.start, rows.stop - rows.start
        box = (centre_x / width, centre_y / height, size_x / width, size_y / height)
        found.append((box, numbered == number))
    return found
