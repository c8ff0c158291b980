"""Regions drawn on the pages: which pixels of a category's images count, stored with the entry of the data root.

A folder below ``.regions`` in the store holds, for each data root, ``drawn.json``, which the page shows and changes,
and the files that runs read (:mod:`iadbe.files.region_files`). Those are named by their content and never change, so a
job that waits keeps the regions that it was planned with.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from iadbe import system
from iadbe.errors import BadConfig, BadData
from iadbe.files.region_files import MAX_SIDE
from iadbe.files.shapes import Polygon, rasterise

FOLDER = ".regions"  # in the store
FILE = "drawn.json"
KINDS = ("roi", "ignore")  # what counts, what does not
CHOICES = {"drawn": KINDS, "roi": ("roi",), "ignore": ("ignore",), "none": ()}  # what a request may use -> kinds
MAX_SHAPES = 100  # of one category
MAX_CORNERS = 2000  # of all shapes of one category

Side = Annotated[int, Field(strict=True, ge=1, le=MAX_SIDE)]
Coordinate = Annotated[float, Field(strict=True, ge=0, le=MAX_SIDE, allow_inf_nan=False)]


class DrawnShape(BaseModel):
    """A rectangle or a polygon; x to the right and y down, in pixels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["roi", "ignore"] = Field(description="`roi`: only this counts; `ignore`: this does not count")
    form: Literal["rectangle", "polygon"]
    points: tuple[tuple[Coordinate, Coordinate], ...] = Field(
        min_length=2,
        max_length=MAX_CORNERS,
        description="two opposite corners of a rectangle, all corners of a polygon",
    )

    @model_validator(mode="after")
    def _has_area(self) -> DrawnShape:
        if self.form == "rectangle" and len(self.points) != 2:
            raise ValueError("a rectangle has two opposite corners")
        if self.form == "polygon" and len(self.points) < 3:
            raise ValueError("a polygon has at least three corners")
        if any(np.ptp([point[axis] for point in self.points]) < 1 for axis in (0, 1)):
            raise ValueError("a shape is at least one pixel wide and high")
        return self

    @property
    def corners(self) -> list[tuple[float, float]]:
        """All corners in order."""
        if self.form == "polygon":
            return list(self.points)
        (left, top), (right, bottom) = self.points
        return [(left, top), (right, top), (right, bottom), (left, bottom)]


class Drawing(BaseModel):
    """What is drawn over the images of one category."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: tuple[Side, Side] = Field(description="width and height of the image that it is drawn on")
    shapes: tuple[DrawnShape, ...] = Field(max_length=MAX_SHAPES)

    @model_validator(mode="after")
    def _lies_inside(self) -> Drawing:
        points = [point for shape in self.shapes for point in shape.points]
        if len(points) > MAX_CORNERS:
            raise ValueError(f"{len(points)} corners are too many; {MAX_CORNERS} are allowed")
        if any(x > self.size[0] or y > self.size[1] for x, y in points):
            raise ValueError("a shape reaches beyond the image")
        return self

    def polygons(self, kind: str) -> list[list[tuple[float, float]]]:
        """Return the shapes of a kind by their corners."""
        return [shape.corners for shape in self.shapes if shape.kind == kind]

    def pixels(self) -> np.ndarray:
        """Return what counts at the size it is drawn on, (H, W) bool."""
        roi, ignored = (self._drawn(kind) for kind in KINDS)
        return (roi if self.polygons("roi") else np.ones_like(roi)) & ~ignored

    def _drawn(self, kind: str) -> np.ndarray:
        shapes = (Polygon(kind, np.array(corners)) for corners in self.polygons(kind))
        return rasterise(shapes, self.size[1], self.size[0], "the drawing")


class DrawnRegion(Drawing):
    """A drawing with what follows from it."""

    counted: float = Field(ge=0, le=1, description="share of an image's pixels that count")


class DrawnRegions:
    """The drawn regions of a server's data roots. Thread-safe."""

    def __init__(self, root: Path) -> None:
        self.root = root / FOLDER
        self._lock = threading.Lock()

    def of(self, name: str) -> dict[str, DrawnRegion]:
        """Return the regions of a data root by category. Raises :class:`BadData` for a damaged file."""
        text = self._text(name)
        try:
            found = {str(key): DrawnRegion.model_validate(value) for key, value in json.loads(text or "{}").items()}
        except (ValueError, AttributeError, ValidationError) as error:
            raise BadData(f"the regions drawn on {name} are damaged: {self.root / name / FILE}.") from error
        return found

    def revision(self, name: str) -> str:
        """Return 16 hex digits of what is drawn; "" where nothing is."""
        text = self._text(name)
        return _digest(text) if text else ""

    def save(self, name: str, category: str, drawing: Drawing, revision: str) -> None:
        """Store what is drawn over a category's images; no shapes remove it.

        Raises :class:`BadConfig` where nothing would count, and where ``revision`` is not the present one, because
        somebody else has changed the drawing in the meantime.
        """
        counted = float(drawing.pixels().mean())
        if not counted:
            raise BadConfig("no pixel would count. Draw a larger region of interest, or ignore less.")
        with self._lock:
            if revision != self.revision(name):
                raise Outdated("the regions of this data have been changed in the meantime. Load the page again.")
            made = DrawnRegion(size=drawing.size, shapes=drawing.shapes, counted=round(counted, 4))
            drawn = {**self.of(name), category: made}
            drawn = {key: one for key, one in sorted(drawn.items()) if one.shapes}
            folder = self.root / name
            if not drawn:
                system.remove(folder / FILE)
                return
            for kind in KINDS:
                if content := _file(drawn, kind):
                    _write(folder / f"{kind}-{_digest(content)}.json", content)
            _write(
                folder / FILE, json.dumps({key: one.model_dump(mode="json") for key, one in drawn.items()}, indent=1)
            )

    def files(self, name: str, categories: Collection[str], choice: str = "drawn") -> dict[str, str]:
        """Return the files of a data root's regions by kind, for :meth:`iadbe.dataset.Dataset.configure`.

        What is drawn on none of the categories, because the data has changed, has no file.
        """
        if not isinstance(choice, str) or choice not in CHOICES:
            raise BadConfig(f"region is one of {', '.join(CHOICES)}, not {str(choice)[:40]!r}.")
        drawn, found = self.of(name), {}
        for kind in CHOICES[choice]:
            if any(drawn[category].polygons(kind) for category in set(categories) & set(drawn)):
                found[kind] = str((self.root / name / f"{kind}-{_digest(_file(drawn, kind))}.json").absolute())
        return found

    def remove(self, name: str) -> None:
        """Remove the regions of a data root."""
        with self._lock:
            if (self.root / name).is_dir():
                system.remove_tree(self.root / name)

    def _text(self, name: str) -> str:
        try:
            return (self.root / name / FILE).read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as error:
            raise BadData(f"the regions drawn on {name} cannot be read: {error}.") from error


class Outdated(BadConfig):
    """Somebody else has changed the same drawing."""


def _file(drawn: dict[str, DrawnRegion], kind: str) -> str:
    """Return the file of a kind for runs, empty where nothing is drawn."""
    polygons = {key: (list(one.size), one.polygons(kind)) for key, one in drawn.items() if one.polygons(kind)}
    content: dict[str, Any] = {key: {"size": size, "polygons": some} for key, (size, some) in polygons.items()}
    return json.dumps(content) if content else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _write(file: Path, content: str) -> None:
    """Write a file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with system.replacing(file) as part:
        part.write_text(content + "\n", encoding="utf-8")
