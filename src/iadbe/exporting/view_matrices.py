"""The view inside an exported graph: Pillow's resize as products with matrices that follow from the image's size.

A resize along one axis is a matrix (out, in): row y holds the weights of the input pixels in output pixel y. It is
computed from the shape of the input, so one graph takes images of any size. The filter is Pillow's ``BILINEAR``: a
triangle of half-width max(1, in / out) input pixels, weights divided by their sum and rounded to 22 binary digits; the
width first, then the height, rounded to whole levels after each.

In whole numbers, with in = I and out = O, the weight of pixel x in pixel y is n / Σn with

    n = max(0, 2 max(I, O) - |(2x + 1) O - (2y + 1) I|).

Its 22 digits are split into two times eleven. Both products with pixels are then sums of whole multiples of a power of
two that float32 holds exactly, in any order, so the view is Pillow's to the last bit. ONNX's own Resize uses another
filter, up to 14 levels apart.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iadbe.data.view import View

STEPS = 2**11  # the square is Pillow's precision of weights


class ViewMatrices:
    """What brings an image of one size into a view, and a map of the view back to the image's size.

    Sizes are tensors (), float32, so that nothing depends on the size with which a graph was traced.
    """

    def __init__(self, view: View, image: Tensor) -> None:
        """Compute the matrices.

        Args:
            view: the geometry
            image: (N, H, W, 3), of which only the shape is used
        """
        self.view = view
        self.rows = torch.arange(image.shape[1], dtype=torch.float32, device=image.device)  # of the image
        self.columns = torch.arange(image.shape[2], dtype=torch.float32, device=image.device)
        sides = self.rows[-1] + 1, self.columns[-1] + 1
        self.resized = _resized_sides(view, *sides)  # height and width before cropping and padding
        self.tops = [
            _offset(side, frame) - _offset(torch.full_like(side, own), frame)
            for side, frame, own in zip(self.resized, view.frame, view.shape, strict=True)
        ]

    def to_view(self, image: Tensor) -> Tensor:
        """Return images (N, H, W, 3) uint8 in the view: (N, 3, h, w), whole levels from 0 to 255 as float32."""
        pixels = image.permute(0, 3, 1, 2).float()
        coarse, fine = self._weights(1, self.columns)
        pixels = _rounded(pixels @ coarse.T, pixels @ fine.T)
        coarse, fine = self._weights(0, self.rows)
        return _rounded(coarse @ pixels, fine @ pixels)

    def counts(self) -> Tensor | None:
        """Return which pixels of the view show the image and not padding, bool (h, w); None where all do."""
        if self.view.fit != "pad":
            return None
        inside = []
        for axis in (0, 1):
            place = torch.arange(self.view.shape[axis], dtype=torch.float32, device=self.rows.device) - self.tops[axis]
            inside.append((place >= 0) & (place < self.resized[axis]))
        return inside[0][:, None] & inside[1]

    def to_native(self, maps: Tensor) -> Tensor:
        """Return maps of the view (N, h, w) at the size of the images, (N, H, W): see :meth:`View.to_native`."""
        (down, above), (across, left) = (self._native_matrix(axis) for axis in (0, 1))
        native = down @ maps @ across.T
        if self.view.crop or self.view.fit == "crop":  # what the view cuts off has the map's lowest value
            counts = self.counts()
            seen = maps if counts is None else torch.where(counts, maps, torch.inf)
            lowest = seen.amin((1, 2), keepdim=True)
            native = torch.where(above[:, None] | left, lowest, native)
        return native

    def _weights(self, axis: int, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Return the matrix (view, image) along an axis as two addends; rows in the padding mirror the image.

        The first holds multiples of 2^-11, the second of 2^-22 below it.
        """
        source = positions.long()  # (I,)
        old, new = source[-1] + 1, self.resized[axis].long()
        place = torch.arange(self.view.shape[axis], device=positions.device) - self.tops[axis].long()
        place = torch.remainder(place, 2 * new)
        place = torch.where(place >= new, 2 * new - 1 - place, place)
        apart = ((2 * source + 1) * new - ((2 * place + 1) * old)[:, None]).abs()
        shares = (2 * torch.maximum(old, new) - apart).clamp(min=0)  # (view, I)
        total = shares.sum(1, keepdim=True)
        coarse = shares * STEPS // total
        rest = shares * STEPS - coarse * total
        fine = (2 * rest * STEPS + total) // (2 * total)
        return coarse.float() / STEPS, fine.float() / STEPS**2

    def _native_matrix(self, axis: int) -> tuple[Tensor, Tensor]:
        """Return the matrix (image, view) of bilinear interpolation along an axis, and what lies outside (image,)."""
        positions = self.rows if axis == 0 else self.columns
        side, resized, start = positions[-1] + 1, self.resized[axis], self.tops[axis]
        view = self.view.shape[axis]
        at = (positions + 0.5) * (resized / side)  # in pixels of the resized image
        first, last = start.clamp(min=0), (start + resized).clamp(max=view) - 1  # of the view that shows the image
        source = torch.minimum(torch.maximum(at - 0.5 + start, first), last)
        places = torch.arange(view, dtype=torch.float32, device=positions.device)
        weights = (1 - (places - source[:, None]).abs()).clamp(min=0)
        outside = (at < -start) | (at >= view - start)
        return weights, outside


def _resized_sides(view: View, height: Tensor, width: Tensor) -> list[Tensor]:
    """Return the sides to which an image is resized before it is cropped or padded: see :meth:`View.placed`."""
    frame = [torch.full_like(height, side) for side in view.frame]
    if view.fit == "squash":
        return frame
    shares = frame[0] / height, frame[1] / width
    share = torch.minimum(*shares) if view.fit == "pad" else torch.maximum(*shares)
    bound = torch.minimum if view.fit == "pad" else torch.maximum
    return [
        bound(whole, (side * share).round().clamp(min=1)) for whole, side in zip(frame, (height, width), strict=True)
    ]


def _offset(side: Tensor, whole: int) -> Tensor:
    """Return where a centred side begins in a whole one; negative where it is longer."""
    rest = whole - side
    return torch.where(rest >= 0, (rest / 2).floor(), -(-rest / 2).floor())


def _rounded(coarse: Tensor, fine: Tensor) -> Tensor:
    """Return the sum of multiples of 2^-11 and 2^-22 rounded to whole levels, a half upwards, from 0 to 255."""
    whole = coarse.floor()
    return (whole + ((coarse - whole) + fine + 0.5).floor()).clamp(0, 255)
