"""Reads which pixels of images count: the region of interest (``roi``) and what is ignored (``ignore``).

Each is given as one of

* a mask for all images, an image file, read as ground-truth masks are (:mod:`iadbe.files.mask_io`);
* a folder of masks, by the images' paths or names: ``good/0.png``, ``0.png`` or ``0_mask.png`` for ``good/0.png``;
* shapes: LabelMe, COCO or CVAT, whatever their classes are. A file about one image holds for all images, one about
  several for each of these;
* polygons in YAML or JSON: a list of polygons [[x, y], …] for all images, or names of images with such lists.

A region is drawn at its image's size. For an image of the same proportions and another size it is resized.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from iadbe import system
from iadbe.errors import BadData
from iadbe.files import annotation_index, image_io, layout, mask_io
from iadbe.files.annotation_index import ImageNames
from iadbe.files.shapes import Polygon, Shape, rasterise

Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels of one image or of all: a mask, or shapes."""

    owner: str  # the file, for messages
    mask: np.ndarray | None = None  # (H, W) bool
    shapes: tuple[Shape, ...] = ()
    size: Size | None = None  # that the file states, of shapes

    def pixels(self, size: Size) -> np.ndarray:
        """Return the pixels for an image of (height, width), (H, W) bool."""
        own = self.size or size
        drawn = rasterise(self.shapes, *own, self.owner) if self.mask is None else self.mask
        return fitted(drawn, size, self.owner)


@dataclass(frozen=True)
class Areas:
    """What one file or folder says about the images."""

    place: Path
    whole: Area | None = None  # for all images
    of: Mapping[str, Area] = field(default_factory=dict)  # by image
    files: Mapping[str, Path] = field(default_factory=dict)  # masks by image, read when they are needed

    def pixels(self, image: str, size: Size) -> np.ndarray | None:
        """Return the pixels of an image; None where nothing is said about it. Raises :class:`BadData`."""
        if image in self.files:
            path = self.files[image]
            return fitted(mask_io.read_mask(path), size, str(path))
        area = self.whole or self.of.get(image)
        return None if area is None else area.pixels(size)


class RegionFiles:
    """Which pixels of the images of a data set count."""

    def __init__(self, root: Path, images: Sequence[str], roi: str = "", ignore: str = "") -> None:
        """Read the files. Raises :class:`BadData` for one that is missing, damaged or about none of the images.

        Args:
            root: folder of the data, from which relative paths are tried first
            images: paths of all images from there
            roi: file or folder of what counts; empty: everything
            ignore: file or folder of what does not count; empty: nothing
        """
        self.roi = _read(root, images, roi) if roi else None
        self.ignore = _read(root, images, ignore) if ignore else None
        self._contents: dict[Path, str] = {}  # file -> digest

    @classmethod
    def of_mask(cls, mask: np.ndarray, owner: str) -> Self:
        """Return the region (H, W) bool of all images; ``owner`` is where it comes from, for messages."""
        made = cls(Path(), ())
        made.roi = Areas(Path(owner), Area(owner, mask))
        return made

    def of(self, image: str, size: Size) -> np.ndarray:
        """Return which pixels of an image of (height, width) count, (H, W) bool.

        Raises :class:`BadData` where ``roi`` is given by image and says nothing about this one.
        """
        region = np.ones(size, bool)
        if self.roi is not None:
            inner = self.roi.pixels(image, size)
            if inner is None:
                raise BadData(
                    f"{self.roi.place} says nothing about {image}. A region of interest by name needs every image: "
                    "a white mask where all of it counts."
                )
            region &= inner
        outer = None if self.ignore is None else self.ignore.pixels(image, size)
        return region if outer is None else region & ~outer

    @property
    def is_common(self) -> bool:
        """Whether all images have the same region."""
        return all(one is None or one.whole is not None for one in (self.roi, self.ignore))

    def digest(self, images: Iterable[str]) -> str:
        """Return 16 hex digits of the content of the files about some images, whatever the files' names are."""
        sha = hashlib.sha256()
        for key, areas in (("roi", self.roi), ("ignore", self.ignore)):
            if areas is not None:
                files = [areas.files.get(image) for image in images] if areas.files else [areas.place]
                sha.update(f"{key}|{[self._content(file) for file in files]}\n".encode())
        return sha.hexdigest()[:16]

    def _content(self, file: Path | None) -> str:
        if file is not None and file not in self._contents:
            self._contents[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return "" if file is None else self._contents[file]


def fitted(region: np.ndarray, size: Size, owner: str) -> np.ndarray:
    """Return a region (H, W) bool at an image's size. Raises :class:`BadData` where the proportions are others."""
    height, width = region.shape
    if (height, width) == size:
        return region
    scale = size[1] / width
    if abs(height * scale - size[0]) > 1 + scale:
        sizes = f"{height}x{width} (height x width), but an image is {size[0]}x{size[1]}"
        raise BadData(f"{owner} is a region of {sizes}. Draw it on an image of the same proportions.")
    return image_io.resized(region, *size)


def filled(pixels: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) uint8 whose pixels outside of a region (H, W) bool have the mean colour inside."""
    if region.all() or not region.any():
        return pixels
    inside = region[:, :, None]
    mean = np.rint(pixels.mean(axis=(0, 1), where=inside)).astype(np.uint8)
    return np.where(inside, pixels, mean)


def located(root: Path, given: str) -> Path:
    """Return where a file or folder is: from ``root``, else from the current folder. Raises :class:`BadData`."""
    path = system.user_path(given)
    places = [Path(os.path.abspath(folder / path)) for folder in (root, Path.cwd())]
    for place in places:
        if place.exists():
            return place
    raise BadData(f"there is no file or folder {' or '.join(dict.fromkeys(map(str, places)))}, which the region names.")


def _read(root: Path, images: Sequence[str], given: str) -> Areas:
    place = located(root, given)
    if place.is_dir():
        return _masks(place, images)
    if image_io.is_image(place):
        return Areas(place, Area(str(place), mask_io.read_mask(place)))
    if place.suffix.lower() in (".yaml", ".yml"):
        return _polygons(place, images, _yaml(place))
    kind, content = annotation_index.inspect(place)
    if not kind and place.suffix.lower() == ".json" and content is not None:
        return _polygons(place, images, content)
    annotated = [one for one in annotation_index.read_file(place)[1] if one.shapes]
    areas = {one.name: Area(str(place), None, one.shapes, one.size) for one in annotated}
    return _by_image(place, images, areas)


def _masks(place: Path, images: Sequence[str]) -> Areas:
    """Return the masks of a folder, by the longest end of an image's path for which there is one."""
    names = {os.path.splitext(name)[0]: place / name for name in layout.images_below(place)}
    found = {}
    for image in images:
        parts = os.path.splitext(image)[0].split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        candidates = (names.get(f"{end}{mark}") for end in ends for mark in ("", *layout.MASK_SUFFIXES))
        if (mask := next((path for path in candidates if path), None)) is not None:
            found[image] = mask
    if not found:
        raise BadData(f"{place} holds masks of none of the {len(images)} images, by their names.")
    return Areas(place, files=found)


def _polygons(place: Path, images: Sequence[str], content: Any) -> Areas:
    try:
        if isinstance(content, Mapping):
            areas = {str(name): Area(str(place), None, _shapes(some)) for name, some in content.items()}
            return _by_image(place, images, areas, several=True)
        return Areas(place, Area(str(place), None, _shapes(content)))
    except (TypeError, ValueError) as error:
        raise BadData(
            f"{place} holds no polygons that can be read ({error}): write a list of polygons, [[x, y], …] each, or "
            "names of images with such lists."
        ) from error


def _shapes(content: Any) -> tuple[Shape, ...]:
    if not isinstance(content, Sequence) or isinstance(content, str) or not content:
        raise ValueError("a list of polygons is missing")
    shapes = []
    for one in content:
        corners = [(float(x), float(y)) for x, y in one]
        if len(corners) < 3:
            raise ValueError("a polygon has at least three corners [x, y]")
        shapes.append(Polygon("region", np.array(corners)))
    return tuple(shapes)


def _by_image(place: Path, images: Sequence[str], areas: Mapping[str, Area], several: bool = False) -> Areas:
    """Return areas by image; the area of a file about one image holds for all, unless it is one of ``several``."""
    if not areas:
        raise BadData(f"{place} holds no shapes.")
    if len(areas) == 1 and not several:
        return Areas(place, next(iter(areas.values())))
    names = ImageNames(images)
    found = {names.of(name, place.name, str(place)): area for name, area in areas.items()}
    matched = {image: area for image, area in found.items() if image is not None}
    if not matched:
        raise BadData(f"{place} is about none of the {len(images)} images: their names are others.")
    return Areas(place, of=matched)


def _yaml(place: Path) -> Any:
    try:
        return yaml.safe_load(layout.read_text(place))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadData(f"{place} cannot be read as YAML: {' '.join(str(error).split())[:200]}.") from error
