"""Shapes of annotation files (polygons, lines, ellipses, run lengths, small masks) and their pixels.

Coordinates are those of the formats: x to the right and y down, in pixels, (0, 0) is the upper left corner of the
image. **Border**: corners are rounded down to whole pixels, and every pixel on the outline belongs to the shape. That
is what LabelMe's own export and Ultralytics draw. A line is one pixel wide.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from iadbe.errors import BadData

MAX_DRAWN = 2**34  # pixels that all shapes of an image may fill together, counted by their bounding boxes
MAX_PIXELS = 2**28  # of one run-length code or small mask


@dataclass(frozen=True, slots=True, eq=False)
class Polygon:
    """A polygon, a polyline if it is not ``closed``, or single points if it is not ``joined``."""

    label: str
    corners: np.ndarray  # (N, 2) float: x, y
    closed: bool = True
    joined: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class RunLengths:
    """A mask as the lengths of its runs of equal pixels; the first run is background."""

    label: str
    counts: np.ndarray  # (N,) int64
    height: int
    width: int
    left: int = 0
    top: int = 0
    by_columns: bool = False  # runs go down the columns (COCO), not along the rows (CVAT)


@dataclass(frozen=True, slots=True, eq=False)
class EncodedMask:
    """A mask as an image file in base64, as LabelMe writes it."""

    label: str
    data: str
    left: int
    top: int


Shape = Polygon | RunLengths | EncodedMask


def rasterise(shapes: Iterable[Shape], height: int, width: int, owner: str) -> np.ndarray:
    """Return the union of shapes as (H, W) bool. Raises :class:`BadData` that begins with ``owner``, the file's name.

    A shape may reach beyond the image by at most the image's own size; what lies outside is cut off.
    """
    given = list(shapes)
    polygons = [shape for shape in given if isinstance(shape, Polygon) and len(shape.corners)]
    masks = [shape for shape in given if not isinstance(shape, Polygon)]
    drawn = Image.new("L", (width, height))
    pen = ImageDraw.Draw(drawn)
    area = sum(float(shape.height * shape.width) for shape in masks if isinstance(shape, RunLengths))
    if polygons:
        corners = _whole(polygons, height, width, owner)
        ends = np.cumsum([len(shape.corners) for shape in polygons])
        starts = np.concatenate([[0], ends[:-1]])
        sides = np.maximum.reduceat(corners, starts) - np.minimum.reduceat(corners, starts) + 1
        area += float(sides.prod(axis=1, dtype=float).sum())
    if area > MAX_DRAWN:
        raise BadData(f"{owner} has more and larger shapes than can be drawn: save them as masks.")
    if polygons:
        points = [(x, y) for x, y in corners.tolist()]
        for shape, start, end in zip(polygons, starts.tolist(), ends.tolist(), strict=True):
            _draw(pen, shape, points[start:end])
    found = np.asarray(drawn) > 0
    for mask in masks:
        _paste(found, mask, owner)
    return found


def _whole(polygons: Sequence[Polygon], height: int, width: int, owner: str) -> np.ndarray:
    """Return the corners of all polygons as whole pixels (N, 2)."""
    corners = np.concatenate([shape.corners for shape in polygons]).astype(float)
    sides = np.array([width, height])
    inside = (corners >= -sides) & (corners <= 2 * sides)  # not a number is not inside
    if not inside.all():
        first = int(np.flatnonzero(~inside.all(axis=1))[0])
        lengths = np.cumsum([len(shape.corners) for shape in polygons])
        label = polygons[int(np.searchsorted(lengths, first, side="right"))].label
        raise BadData(f"{owner} has a shape {label!r} far outside of its image, which is {width} x {height}.")
    whole: np.ndarray = np.floor(corners).astype(int)
    return whole - (corners == sides)  # the far edge of the last pixel, where boxes end


def _draw(pen: ImageDraw.ImageDraw, shape: Polygon, corners: list[tuple[int, int]]) -> None:
    if not shape.joined or len(corners) == 1:
        pen.point(corners, fill=1)
    elif shape.closed and len(corners) > 2:
        pen.polygon(corners, fill=1, outline=1)
    else:
        pen.line(corners, fill=1)


def _paste(found: np.ndarray, shape: RunLengths | EncodedMask, owner: str) -> None:
    """Set the pixels of a mask in ``found`` (H, W)."""
    pixels = _decoded(shape, owner)
    bottom, right = shape.top + pixels.shape[0], shape.left + pixels.shape[1]
    if isinstance(shape, RunLengths) and shape.by_columns and pixels.shape != found.shape:
        raise BadData(f"{owner} has a mask of {_size(pixels)} for an image of {_size(found)} (height x width).")
    if shape.top < 0 or shape.left < 0 or bottom > found.shape[0] + 1 or right > found.shape[1] + 1:
        raise BadData(f"{owner} has a mask {shape.label!r} that reaches beyond its image of {_size(found)}.")
    part = found[shape.top : bottom, shape.left : right]
    part |= pixels[: part.shape[0], : part.shape[1]]


def _decoded(shape: RunLengths | EncodedMask, owner: str) -> np.ndarray:
    if isinstance(shape, RunLengths):
        return from_runs(shape, owner)
    try:
        data = base64.b64decode(shape.data, validate=True)
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ValueError("it is too large")
            return np.asarray(image.convert("L")) > 0
    except (ValueError, OSError, binascii.Error, SyntaxError, Image.DecompressionBombError) as error:
        raise BadData(f"{owner} has a mask {shape.label!r} that cannot be read: {error}.") from error


def runs_of(mask: np.ndarray) -> np.ndarray:
    """Return the lengths (N,) int64 of the runs of a mask (H, W) bool along its rows; the first is background."""
    changes = np.flatnonzero(np.diff(mask.ravel(), prepend=False))
    return np.diff(np.concatenate([[0], changes, [mask.size]])).astype(np.int64)


def from_runs(shape: RunLengths, owner: str) -> np.ndarray:
    """Return the pixels (H, W) bool of run lengths. Raises :class:`BadData` where they do not fill their size."""
    counts = np.asarray(shape.counts, np.int64)
    area = shape.height * shape.width
    sensible = shape.height > 0 and shape.width > 0 and area <= MAX_PIXELS and len(counts) <= area + 1
    if not sensible or (counts < 0).any() or (counts > area).any() or int(counts.sum()) != area:
        size = f"{shape.height}x{shape.width}"
        raise BadData(f"{owner} has a run-length code of {shape.label!r} that does not fill its size, {size}.")
    values = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return values.reshape(shape.width, shape.height).T if shape.by_columns else values.reshape(shape.height, -1)


def fingerprint(shape: Shape) -> str:
    """Return a digest of a shape's pixels, as the file describes them."""
    if isinstance(shape, Polygon):
        what: tuple[object, ...] = (shape.closed, shape.joined, np.asarray(shape.corners, float).tolist())
    elif isinstance(shape, RunLengths):
        place = (shape.height, shape.width, shape.left, shape.top, shape.by_columns)
        what = (*place, shape.counts.tolist())
    else:
        what = (shape.left, shape.top, shape.data)
    return hashlib.sha256(repr(what).encode()).hexdigest()


def uncompressed(text: str) -> np.ndarray:
    """Return the counts (N,) int64 of COCO's compressed run-length code. Raises :class:`ValueError` for another text.

    A count is written in groups of 5 bits, the lowest first, as characters from 48 on; bit 32 says that another group
    follows, bit 16 of the last group is the sign. From the fourth count on, the difference to the count two before is
    written. Source: the description of the format in the COCO API (``rleToString``).
    """
    counts: list[int] = []
    position = 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            if position >= len(text) or shift > 60:
                raise ValueError("it ends within a number")
            group = ord(text[position]) - 48
            if not 0 <= group < 64:
                raise ValueError(f"it holds the character {text[position]!r}")
            position += 1
            value |= (group & 31) << shift
            shift += 5
            more = bool(group & 32)
        if group & 16:
            value -= 1 << shift
        if len(counts) > 2:
            value += counts[-2]
        if not 0 <= value < 2**62:
            raise ValueError("it holds a length that is not possible")
        counts.append(value)
    return np.array(counts, np.int64)


def ellipse(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> np.ndarray:
    """Return an ellipse as corners (N, 2), less than a quarter of a pixel from the curve.

    ``degrees`` turns it clockwise in the image, as CVAT does.
    """
    largest = max(1.0, *(abs(r) for r in radii))
    step = 2 * math.acos(1 - min(max(0.25 / largest, 1e-9), 0.5))  # a chord of this angle is that near to its arc
    angle = np.linspace(0, 2 * math.pi, max(16, math.ceil(2 * math.pi / step)), endpoint=False)
    points = np.stack([radii[0] * np.cos(angle), radii[1] * np.sin(angle)], 1)
    return turned(points, (0.0, 0.0), degrees) + np.asarray(centre, float)


def rectangle(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> np.ndarray:
    """Return the corners (4, 2) of a rectangle, turned clockwise about its centre."""
    corners = np.array([[left, top], [right, top], [right, bottom], [left, bottom]], float)
    return turned(corners, ((left + right) / 2, (top + bottom) / 2), degrees)


def turned(corners: np.ndarray, centre: tuple[float, float], degrees: float) -> np.ndarray:
    """Return corners (N, 2) turned clockwise in the image about a centre."""
    if not degrees:
        return corners
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    result: np.ndarray = (corners - centre) @ np.array([[cos, sin], [-sin, cos]]) + centre
    return result


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[0]}x{pixels.shape[1]}"
