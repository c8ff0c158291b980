"""Zones of an image: named areas, each of which may have a threshold of its own for pixels.

Read from a file about all images of a model:

* a mask, which is one zone named like its file;
* shapes of LabelMe or COCO (of one image) or of CVAT: a label is a zone;
* JSON: ``{"zones": {"edge": {"polygons": [[[x, y], …], …], "threshold": 0.4}, …}, "size": [width, height]}``.

Where a file does not state a size, zones are drawn in the pixels of the images. For an image of the same proportions
and another size they are resized.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import annotation_index, image_io, mask_io, region_files
from iadbe.files.shapes import Polygon, RunLengths, Shape, from_runs, rasterise, runs_of

Size = tuple[int, int]  # height, width
MAX_SIDE = 2**14  # pixels of a zone's stated size
MAX_ZONES = 100
OWNER = "the zones of the model"


@dataclass(frozen=True, slots=True)
class Zone:
    """A named area of every image."""

    name: str
    size: Size  # at which it is drawn
    runs: str  # lengths of the runs of its mask along the rows, the first of them outside
    threshold: float | None = None  # of the map in it, fixed; None: that of the rest of the image

    @classmethod
    def of_mask(cls, name: str, mask: np.ndarray, threshold: float | None = None) -> Zone:
        """Return a zone of a mask (H, W) bool."""
        height, width = mask.shape
        return cls(name, (height, width), " ".join(map(str, runs_of(mask).tolist())), threshold)

    def mask(self) -> np.ndarray:
        """Return the zone as drawn, (H, W) bool."""
        counts = np.array([int(run) for run in self.runs.split()], np.int64)
        return from_runs(RunLengths(self.name, counts, *self.size), OWNER)


@lru_cache(maxsize=4)
def zone_numbers(zones: tuple[Zone, ...], size: Size) -> np.ndarray | None:
    """Return the number of the zone that each pixel of an image of (height, width) is in, (H, W) uint8; None: no zones.

    0 is outside of all zones, 1 the first zone; a pixel belongs to the first of several. Raises :class:`BadData` where
    the image's proportions are others.
    """
    if not zones:
        return None
    numbers = np.zeros(size, np.uint8)
    for number, zone in reversed(list(enumerate(zones, 1))):
        numbers[region_files.fitted(zone.mask(), size, OWNER)] = number
    numbers.setflags(write=False)
    return numbers


def from_card(card: Sequence[Mapping[str, Any]]) -> tuple[Zone, ...]:
    """Return the zones that a card holds. Raises ValueError for what is none."""
    zones = []
    for one in card:
        name, size, runs, threshold = one["name"], one["size"], one["runs"], one["threshold"]
        if not isinstance(name, str) or not isinstance(runs, str):
            raise ValueError("a zone has a name and run lengths")
        if len(size) != 2 or not all(type(side) is int and 0 < side <= MAX_SIDE for side in size):
            raise ValueError("a zone's size is a height and a width in pixels")
        if not all(run.isdecimal() and len(run) < 12 for run in runs.split()):
            raise ValueError("a zone's run lengths are whole numbers")
        if threshold is not None and (type(threshold) not in (int, float) or not math.isfinite(threshold)):
            raise ValueError("a zone's threshold is a number")
        zones.append(Zone(name, (size[0], size[1]), runs, threshold))
        try:
            zones[-1].mask()
        except BadData as error:
            raise ValueError(str(error)) from error
    if len(zones) > MAX_ZONES:
        raise ValueError(f"there are more than {MAX_ZONES} zones")
    return tuple(zones)


def read(file: Path, size: Size, thresholds: Mapping[str, float] | None = None) -> tuple[Zone, ...]:
    """Read the zones of a file.

    Args:
        file: a mask, or shapes
        size: (height, width) of the images, for files that do not state one
        thresholds: by zone, of the map in it

    Raises:
        BadData: for a file that cannot be read or holds no zones
        BadConfig: for a threshold of a zone that the file does not have
    """
    if not file.is_file():
        raise BadData(f"there is no file {file.absolute()}, which should hold the zones.")
    zones = [Zone.of_mask(file.stem, mask_io.read_mask(file))] if image_io.is_image(file) else _drawn(file, size)
    if not zones or len(zones) > MAX_ZONES:
        raise BadData(f"{file} holds {len(zones)} zones; there must be 1 to {MAX_ZONES}.")
    names = [zone.name for zone in zones]
    for name in thresholds or {}:
        if name not in names:
            raise BadConfig(f"{file} has no zone {name!r}.{did_you_mean(name, names)} It has: {', '.join(names)}.")
    zones = [replace(zone, threshold=(thresholds or {}).get(zone.name, zone.threshold)) for zone in zones]
    if any(zone.threshold is not None and not math.isfinite(zone.threshold) for zone in zones):
        raise BadConfig("the threshold of a zone is a finite number.")
    return tuple(zones)


def _drawn(file: Path, size: Size) -> list[Zone]:
    """Read zones from shapes."""
    kind, content = annotation_index.inspect(file)
    if not kind and isinstance(content, Mapping) and "zones" in content:
        return _own(file, content, size)
    annotated = [one for one in annotation_index.read_file(file)[1] if one.shapes]
    if len(annotated) != 1:
        raise BadData(
            f"{file} has shapes of {len(annotated)} images. Zones are the same for all images: give a file about one "
            'image, a mask, or JSON such as {"zones": {"edge": {"polygons": [[[0, 0], [9, 0], [9, 9]]]}}}.'
        )
    labels: dict[str, list[Shape]] = {}
    for shape in annotated[0].shapes:
        labels.setdefault(shape.label, []).append(shape)
    at = annotated[0].size or size
    return [Zone.of_mask(name, rasterise(shapes, *at, str(file))) for name, shapes in labels.items()]


def _own(file: Path, content: Mapping[str, Any], size: Size) -> list[Zone]:
    try:
        if "size" in content:
            width, height = content["size"]
            size = (height, width)
            if not all(type(side) is int and 0 < side <= MAX_SIDE for side in size):
                raise ValueError(f"a size is [width, height] in pixels, up to {MAX_SIDE}")
        zones = []
        for name, one in content["zones"].items():
            shapes = [Polygon(name, np.asarray(corners, float).reshape(-1, 2)) for corners in one["polygons"]]
            threshold = one.get("threshold")
            mask = rasterise(shapes, *size, str(file))
            zones.append(Zone.of_mask(str(name), mask, None if threshold is None else float(threshold)))
        return zones
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        why = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else " ".join(str(error).split())[:200]
        raise BadData(f"{file} holds no zones that can be read: {why}.") from error
