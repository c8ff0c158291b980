"""Reads annotations of CVAT in its format "CVAT for images 1.1", XML: one file for all images.

Polygons, boxes and ellipses (also turned), polylines, points and masks are read; cuboids and skeletons are refused.
The parser expands no entities: a document type declaration is refused before anything is read.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.parsers import expat

import numpy as np

from iadbe.errors import BadData
from iadbe.files.annotation_json import AnnotatedImage
from iadbe.files.shapes import Polygon, RunLengths, Shape, ellipse, rectangle

SHAPES = ("polygon", "box", "ellipse", "polyline", "points", "mask")
REFUSED = ("cuboid", "skeleton")
CHUNK = 2**20  # bytes read at a time


def read_cvat(path: Path) -> list[AnnotatedImage]:
    """Return all images of a file, also those without an annotation. Raises :class:`BadData` that names the file."""
    reader = _Reader()
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                reader.parser.Parse(chunk, False)
            reader.parser.Parse(b"", True)
    except (expat.ExpatError, OSError, KeyError, ValueError, OverflowError) as error:
        what = f"an attribute {error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadData(f"{path} is not a CVAT file that can be read: {what.rstrip('.')}.") from error
    if reader.root != "annotations" or reader.track:
        what = "it holds the tracks of a video" if reader.track else f"it begins with <{reader.root}>"
        raise BadData(f"{path} is not a file of the format `CVAT for images 1.1`: {what}. Export it in that format.")
    return reader.images


class _Reader:
    """The handlers of the parser: they collect the images of a document while it is read."""

    def __init__(self) -> None:
        self.images: list[AnnotatedImage] = []
        self.root = ""
        self.track = False
        self._shapes: list[Shape] | None = None
        self.parser = expat.ParserCreate()
        self.parser.StartDoctypeDeclHandler = _refuse
        self.parser.EntityDeclHandler = _refuse
        self.parser.ExternalEntityRefHandler = _refuse
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end

    def _start(self, tag: str, given: dict[str, str]) -> None:
        self.root = self.root or tag
        self.track = self.track or tag == "track"
        if tag == "image":
            size = (int(given["height"]), int(given["width"])) if {"height", "width"} <= set(given) else None
            self._shapes = []
            self.images.append(AnnotatedImage(given["name"], (), size))
        elif self._shapes is not None and tag in REFUSED:
            raise ValueError(f"a {tag} cannot be read as a mask")
        elif self._shapes is not None and tag in SHAPES:
            self._shapes.append(_shape(tag, given))

    def _end(self, tag: str) -> None:
        if tag == "image" and self._shapes is not None:
            self.images[-1] = self.images[-1]._replace(shapes=tuple(self._shapes))
            self._shapes = None


def _shape(tag: str, given: dict[str, str]) -> Shape:
    label, degrees = given["label"], float(given.get("rotation", 0))
    if tag == "box":
        left, top, right, bottom = (float(given[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
        return Polygon(label, rectangle(left, top, right, bottom, degrees))
    if tag == "ellipse":
        cx, cy, rx, ry = (float(given[key]) for key in ("cx", "cy", "rx", "ry"))
        return Polygon(label, ellipse((cx, cy), (rx, ry), degrees))
    if tag == "mask":
        x, y, width, height = (int(float(given[key])) for key in ("left", "top", "width", "height"))
        counts = np.array([int(count) for count in given["rle"].split(",")], np.int64)
        return RunLengths(label, counts, height, width, x, y)
    corners = np.array([[float(v) for v in point.split(",")] for point in given["points"].split(";")], float)
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ValueError(f"the points of a {tag} are not pairs of numbers")
    return Polygon(label, corners, closed=tag == "polygon", joined=tag != "points")


def _refuse(*_: Any) -> Any:
    raise ValueError("it declares a document type or an entity, which is not read")
