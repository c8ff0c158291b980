"""The view: the geometry in which all detectors see an image, and the way back to the image's own size."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io
from iadbe.protocol import FITS, NATIVE, Protocol


class Placement(NamedTuple):
    """Where an image lies in a view: it is resized, then its pixel (y, x) is pixel (y + top, x + left) there."""

    height: int  # of the resized image
    width: int
    top: int  # negative where the view cuts something off
    left: int


@dataclass(frozen=True, slots=True)
class View:
    """The geometry of the input. The backbone normalises the values.

    The frame has ``resize`` rows and ``resize_width`` columns (0: as many as rows). How an image of another aspect
    ratio comes into it is ``fit``:

    * ``squash``: both sides are resized to the frame's, whatever the aspect ratio;
    * ``pad``: the longest side fits, the image is centred, and the rest is padding, which never counts (see
      ``Batch.region``). The border of an image is mirrored into it: an edge to a constant would itself be a structure
      that features near the border see;
    * ``crop``: the shortest side fits, and what is outside of the centre is cut off.

    The central ``crop`` x ``crop`` pixels of the frame are taken if ``crop`` is not 0. Masks, regions and depth are
    resampled by nearest neighbour; in the padding there is no defect, no region and no depth (nan).
    """

    resize: int = 256
    crop: int = 0
    fit: str = "squash"
    resize_width: int = 0

    def __post_init__(self) -> None:
        height, width = self.frame
        if min(height, width) < 8 or not 0 <= self.crop <= min(height, width) or self.fit not in FITS:
            frame = f"{self.resize}" if height == width else f"{height} x {width}"
            raise BadConfig(f"a view of resize {frame}, crop {self.crop} and fit {self.fit} is not possible.")

    @property
    def frame(self) -> tuple[int, int]:
        """Height and width before ``crop``, in pixels."""
        return self.resize, self.resize_width or self.resize

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the view, in pixels."""
        return (self.crop, self.crop) if self.crop else self.frame

    @property
    def size(self) -> int:
        """The side of a square view, in pixels. Raises :class:`BadConfig` where the sides differ: see ``shape``."""
        height, width = self.shape
        if height != width:
            raise BadConfig(f"a square view is needed here, not one of {height} x {width} pixels (height x width).")
        return height

    def __str__(self) -> str:
        return "{} x {}".format(*self.shape)

    def placed(self, height: int, width: int) -> Placement:
        """Return where an image of this height and width lies in the view."""
        frame = self.frame
        shares = frame[0] / height, frame[1] / width
        if self.fit == "squash":
            sides = frame
        else:
            share = min(shares) if self.fit == "pad" else max(shares)
            bound = min if self.fit == "pad" else max  # rounding must not pass the frame
            rows, columns = (
                bound(whole, max(1, round(side * share))) for whole, side in zip(frame, (height, width), strict=True)
            )
            sides = (rows, columns)
        return Placement(
            *sides,
            *(
                _start(have, whole) - _start(want, whole)
                for have, want, whole in zip(sides, self.shape, frame, strict=True)
            ),
        )

    def __call__(self, pixels: np.ndarray) -> np.ndarray:
        """Return (H, W, 3) uint8, (H, W) bool or (H, W) float32 in this view."""
        place = self.placed(pixels.shape[0], pixels.shape[1])
        pixels = image_io.resized(pixels, place.height, place.width)
        rows, columns = (_content(*sides) for sides in self._sides(place))
        pixels = pixels[
            rows.start - place.top : rows.stop - place.top, columns.start - place.left : columns.stop - place.left
        ]
        height, width = self.shape
        if pixels.shape[:2] == (height, width):
            return pixels
        border = ((rows.start, height - rows.stop), (columns.start, width - columns.stop), (0, 0))[: pixels.ndim]
        if pixels.ndim == 3:
            return np.pad(pixels, border, mode="symmetric")
        return np.pad(pixels, border, constant_values=False if pixels.dtype == bool else np.nan)

    def content(self, height: int, width: int) -> np.ndarray | None:
        """Return which pixels of the view show an image of this size, bool (h, w); None where all of them do."""
        place = self.placed(height, width)
        rows, columns = (_content(*sides) for sides in self._sides(place))
        if (rows.stop - rows.start, columns.stop - columns.start) == self.shape:
            return None
        shown = np.zeros(self.shape, bool)
        shown[rows, columns] = True
        return shown

    def to_native(self, map_: np.ndarray, native: tuple[int, int], size: tuple[int, int] | None = None) -> np.ndarray:
        """Return a map of the view, (h, w) float32, over the whole image, at its own size: bilinear, float32.

        Padding is left out and never mixed in. What the view cuts off gets the map's lowest value: nothing was found
        there, because nothing was looked at.

        Args:
            map_: of the view
            native: height and width of the image
            size: height and width of the result; None: those of the image
        """
        import torch.nn.functional as F  # views are planned without torch
        from torch import from_numpy

        place = self.placed(*native)
        rows, columns = (_content(*sides) for sides in self._sides(place))
        seen = map_[rows, columns]
        cut = tuple(
            (part.start - start, start + side - part.stop)
            for part, start, side in ((rows, place.top, place.height), (columns, place.left, place.width))
        )
        size = native if size is None else size
        whole = np.pad(seen, cut, mode="edge") if any(map(any, cut)) else np.ascontiguousarray(seen)
        tensor = from_numpy(whole)[None, None]
        result: np.ndarray = F.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()
        for axis, ((before, after), side) in enumerate(zip(cut, (place.height, place.width), strict=True)):
            at = (np.arange(size[axis]) + 0.5) * (side / size[axis])  # of the result's pixels, in resized pixels
            outside = (at < before) | (at >= side - after)
            if outside.any():
                result[(outside, slice(None)) if axis == 0 else (slice(None), outside)] = seen.min()
        return result

    def _sides(self, place: Placement) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
        """Return (start, length, length of the view) of the image for rows and columns."""
        height, width = self.shape
        return (place.top, place.height, height), (place.left, place.width, width)


def view_of(protocol: Protocol, paper_view: Mapping[str, Any], sizes: Iterable[tuple[int, int]] = ()) -> View:
    """Return the view of a protocol.

    Args:
        protocol: says how large it is
        paper_view: the detector's own, for papers
        sizes: height and width of the images; read only where the view has the size of the images
    """
    if protocol.kind == "paper":
        return View(**paper_view)
    if protocol.size == NATIVE:
        height, width = _common(sizes)
        return View(height, resize_width=0 if width == height else width)
    return View(protocol.size, fit=protocol.fit, resize_width=protocol.width)


def _common(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """Return the one (height, width) that all images have. Raises :class:`BadData` where they differ."""
    found = sorted(set(sizes))
    if not found:
        raise BadData("a view of the images' own size needs images.")
    if len(found) > 1:
        height, width = (max(size[axis] for size in found) for axis in (0, 1))
        small, large = ("{1} x {0}".format(*min(found, key=math.prod)), "{1} x {0}".format(*max(found, key=math.prod)))
        raise BadData(
            f"the images have {len(found)} sizes, from {small} to {large} (width x height), so there is no native "
            f"view. Take --size {width}x{height} --fit pad."
        )
    return found[0]


def _start(side: int, whole: int) -> int:
    """Return where a centred side begins in a whole one; negative where it is longer."""
    return (whole - side) // 2 if side <= whole else -((side - whole) // 2)


def _content(start: int, length: int, view: int) -> slice:
    """Return the part of a side of the view that an image from ``start`` on covers."""
    return slice(max(0, start), min(view, start + length))
