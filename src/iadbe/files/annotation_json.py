"""Reads annotations in JSON: LabelMe (one file for each image) and COCO (one file for all).

* LabelMe: polygons, rectangles, circles, lines, points, turned rectangles (X-AnyLabeling) and masks. A shape of three
  or more points without a type is a polygon.
* COCO: polygons and run-length codes, compressed or not; an annotation without a segmentation is its box.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from iadbe.errors import BadData
from iadbe.files.shapes import EncodedMask, Polygon, RunLengths, Shape, ellipse, rectangle, uncompressed

TYPES = ("polygon", "rotation", "rectangle", "circle", "line", "linestrip", "point", "points", "mask")


class AnnotatedImage(NamedTuple):
    """The shapes of one image."""

    name: str  # of the image, as the file writes it
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None  # (height, width) that the file states


def is_labelme(content: Any) -> bool:
    """Say whether the content of a JSON file is one image's annotation of LabelMe."""
    return isinstance(content, dict) and "shapes" in content and "imagePath" in content


def is_coco(content: Any) -> bool:
    """Say whether the content of a JSON file is annotations of COCO."""
    return isinstance(content, dict) and {"images", "annotations", "categories"} <= set(content)


def read_labelme(content: Mapping[str, Any], owner: str) -> AnnotatedImage:
    """Return the image of a LabelMe file. Raises :class:`BadData` that begins with ``owner``, the file's name."""
    try:
        shapes = tuple(_labelme_shape(one) for one in content["shapes"])
        return AnnotatedImage(str(content["imagePath"]), shapes, _size(content, "imageHeight", "imageWidth"))
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BadData(f"{owner} is not a LabelMe file that can be read: {_reason(error)}.") from error


def read_coco(content: Mapping[str, Any], owner: str) -> list[AnnotatedImage]:
    """Return all images of a COCO file, also those without an annotation. Raises :class:`BadData` as above."""
    try:
        labels = {one["id"]: str(one["name"]) for one in content["categories"]}
        shapes: dict[Any, list[Shape]] = defaultdict(list)
        for one in content["annotations"]:
            shapes[one["image_id"]] += _coco_shapes(one, labels[one["category_id"]])
        return [
            AnnotatedImage(str(one["file_name"]), tuple(shapes[one["id"]]), _size(one, "height", "width"))
            for one in content["images"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise BadData(f"{owner} is not a COCO file that can be read: {_reason(error)}.") from error


def _labelme_shape(one: Mapping[str, Any]) -> Shape:
    label, points = str(one["label"]), _points(one["points"])
    kind = one.get("shape_type") or ("polygon" if len(points) > 2 else "line")
    if kind not in TYPES:
        raise ValueError(f"shape_type {kind!r} is not one of {', '.join(TYPES)}")
    if kind in ("rectangle", "circle", "mask") and len(points) != 2 + 2 * (kind == "rectangle" and len(points) == 4):
        raise ValueError(f"a {kind} has 2 points, not {len(points)}")
    if kind == "mask":
        left, top = points.min(axis=0)
        return EncodedMask(label, str(one["mask"]), math.floor(left), math.floor(top))
    if kind == "rectangle":
        return Polygon(label, rectangle(*map(float, (*points.min(axis=0), *points.max(axis=0)))))
    if kind == "circle":
        radius = float(np.linalg.norm(points[1] - points[0]))
        return Polygon(label, ellipse(points[0], (radius, radius)))
    return Polygon(label, points, closed=kind in ("polygon", "rotation"), joined=not kind.startswith("point"))


def _coco_shapes(one: Mapping[str, Any], label: str) -> list[Shape]:
    found = one.get("segmentation")
    if isinstance(found, dict):
        height, width = (int(side) for side in found["size"])
        counts = found["counts"]
        runs = uncompressed(counts) if isinstance(counts, str) else np.array([int(c) for c in counts], np.int64)
        return [RunLengths(label, runs, height, width, by_columns=True)]
    if found:
        return [Polygon(label, _points(np.reshape(np.asarray(ring, float), (-1, 2)))) for ring in found]
    x, y, w, h = (float(v) for v in one["bbox"])
    return [Polygon(label, rectangle(x, y, x + w, y + h))]


def _points(values: Any) -> np.ndarray:
    points = np.asarray(values, float).reshape(-1, 2) if len(values) else np.empty((0, 2))
    if not len(points):
        raise ValueError("a shape has no points")
    if not np.isfinite(points).all():
        raise ValueError("a coordinate is not finite")
    return points


def _size(content: Mapping[str, Any], height: str, width: str) -> tuple[int, int] | None:
    if content.get(height) is None or content.get(width) is None:
        return None
    return int(content[height]), int(content[width])


def _reason(error: Exception) -> str:
    what = f"{error.args[0]!r} is missing or not known" if isinstance(error, KeyError) else str(error)
    return " ".join(what.split())[:200].rstrip(".")
