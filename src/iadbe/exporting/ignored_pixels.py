"""The region of a model inside an exported graph: pixels that do not count get one colour and give no score.

What predictions do with a model folder, in operations of a graph: the region is fitted to the image's size, the other
pixels get the mean colour of those inside (:func:`iadbe.files.region_files.filled`), and the view shows which of its
pixels count. Where a pixel lies exactly between two of the region, Pillow's rounding error decides, so there an edge of
the region may be one pixel off. An image of other proportions than the region, or of which no pixel counts in the view,
has the score nan.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.exporting.view_matrices import ViewMatrices


class Counted(NamedTuple):
    """Images whose ignored pixels are filled, and what counts."""

    image: Tensor  # (N, H, W, 3), as given
    region: Tensor  # (h, w) bool, of the view
    valid: Tensor  # () bool: whether the region fits these images


class IgnoredPixels(nn.Module):
    """Which pixels of every image count."""

    region: Tensor

    def __init__(self, region: np.ndarray) -> None:
        """Take the region of a model, (H, W) bool."""
        super().__init__()
        self.register_buffer("region", torch.from_numpy(np.ascontiguousarray(region)), persistent=False)

    def forward(self, image: Tensor, matrices: ViewMatrices) -> Counted:
        """Return images (N, H, W, 3), whole levels from 0 to 255, with ignored pixels filled.

        ``matrices`` are those of the images' size.
        """
        axes = [
            _nearest(positions, positions[-1] + 1, old)
            for positions, old in zip((matrices.rows, matrices.columns), self.region.shape, strict=True)
        ]
        own = self.region[axes[0]][:, axes[1]]  # (H, W), at the images' size
        shown = []
        for axis, positions in enumerate((matrices.rows, matrices.columns)):
            resized = matrices.resized[axis]
            place = torch.arange(matrices.view.shape[axis], dtype=torch.float32, device=image.device)
            place = place - matrices.tops[axis]  # in the resized image
            seen = (place >= 0) & (place < resized)
            shown.append((_nearest(place.clamp(min=0).minimum(resized - 1), resized, positions.shape[0]), seen))
        (rows, above), (columns, left) = shown
        region = own[rows][:, columns] & above[:, None] & left
        return Counted(_filled(image, own), region, self._same_proportions(matrices) & region.any())

    def _same_proportions(self, matrices: ViewMatrices) -> Tensor:
        """Return whether the images have the region's proportions: see :mod:`iadbe.files.region_files`."""
        height, width = matrices.rows[-1] + 1, matrices.columns[-1] + 1
        scale = width / self.region.shape[1]
        return (self.region.shape[0] * scale - height).abs() <= 1 + scale


def _nearest(place: Tensor, side: Tensor, old: Any) -> Tensor:
    """Return which of ``old`` pixels is nearest to each of the pixels ``place`` (n,) of ``side``, int64."""
    return (2 * place.long() + 1) * old // (2 * side.long())


def _filled(image: Tensor, inside: Tensor) -> Tensor:
    """Return images (N, H, W, 3) whose pixels outside of ``inside`` (H, W) have the mean colour inside, rounded.

    Sums of rows are whole numbers that float32 holds; those of images are int64. A half is rounded to the even level.
    """
    pixels, counts = image.float(), inside[:, :, None]
    total = (pixels * counts).sum(2).long().sum(1)  # (N, 3)
    number = inside.long().sum().clamp(min=1)
    doubled = 2 * total + number
    mean = doubled // (2 * number)
    halfway = (doubled % (2 * number) == 0) & (mean % 2 == 1)
    mean = (mean - halfway.long()).to(image.dtype)
    return torch.where(counts | ~inside.any(), image, mean[:, None, None])
