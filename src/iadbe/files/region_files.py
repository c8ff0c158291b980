"""Reads which pixels of images count: the region of interest (``roi``) and what is ignored (``ignore``).

Each is given as one of

* a mask for all images, an image file, read as ground-truth masks are (:mod:`iadbe.files.mask_io`);
* a folder of masks, by the images' paths or names: ``good/0.png``, ``0.png`` or ``0_mask.png`` for ``good/0.png``;
* shapes: LabelMe, COCO or CVAT, whatever their classes are. A file about one image holds for all images, one about
  several for each of these;
* polygons in YAML or JSON: a list of polygons [[x, y], …] for all images, or names of images or of categories with such
  lists. Instead of a list, ``{size: [width, height], polygons: [...]}`` says at what size they are drawn.

A region is drawn at its image's size. For an image of the same proportions and another size it is resized. A file by
categories says nothing about the other categories, whose images count whole.
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
MAX_SIDE = 2**16  # pixels of a stated size


@dataclass(frozen=True, slots=True)
class Area:
    """Pixels of one image or of all: a mask, or shapes."""

    owner: str  # the file, for messages
    mask: np.ndarray | None = None  # (H, W) bool
    shapes: tuple[Shape, ...] = ()
    size: Size | None = None  # that the file states, of shapes

    @property
    def content(self) -> str:
        """Polygons and their size as text, for a digest."""
        return str([self.size, *(shape.corners.tolist() for shape in self.shapes if isinstance(shape, Polygon))])

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
    of_category: Mapping[str, Area] = field(default_factory=dict)
    files: Mapping[str, Path] = field(default_factory=dict)  # masks by image, read when they are needed

    @property
    def is_by_category(self) -> bool:
        """Whether it is about whole categories, and about no single image."""
        return bool(self.of_category) and not self.of

    @property
    def is_common(self) -> bool:
        """Whether all images of a category have the same pixels."""
        return self.whole is not None or self.is_by_category

    def pixels(self, image: str, category: str, size: Size) -> np.ndarray | None:
        """Return the pixels of an image; None where nothing is said about it. Raises :class:`BadData`."""
        if image in self.files:
            path = self.files[image]
            return fitted(mask_io.read_mask(path), size, str(path))
        area = self.whole or self.of.get(image) or self.of_category.get(category)
        return None if area is None else area.pixels(size)


class RegionFiles:
    """Which pixels of the images of a data set count."""

    def __init__(self, root: Path, images: Mapping[str, str], roi: str = "", ignore: str = "") -> None:
        """Read the files. Raises :class:`BadData` for one that is missing, damaged or about none of the images.

        Args:
            root: folder of the data, from which relative paths are tried first
            images: paths of all images from there, with their categories
            roi: file or folder of what counts; empty: everything
            ignore: file or folder of what does not count; empty: nothing
        """
        self.roi = _read(root, images, roi) if roi else None
        self.ignore = _read(root, images, ignore) if ignore else None
        self._category = dict(images)
        self._contents: dict[Path, str] = {}  # file -> digest

    @classmethod
    def of_mask(cls, mask: np.ndarray, owner: str) -> Self:
        """Return the region (H, W) bool of all images; ``owner`` is where it comes from, for messages."""
        made = cls(Path(), {})
        made.roi = Areas(Path(owner), Area(owner, mask))
        return made

    def of(self, image: str, size: Size) -> np.ndarray | None:
        """Return which pixels of an image of (height, width) count, (H, W) bool; None: nothing is said about it.

        Raises :class:`BadData` where ``roi`` is given by image and says nothing about this one.
        """
        category, region = self._category.get(image, ""), None
        if self.roi is not None:
            region = self.roi.pixels(image, category, size)
            if region is None and not self.roi.is_by_category:
                raise BadData(
                    f"{self.roi.place} says nothing about {image}. A region of interest by name needs every image: "
                    "a white mask where all of it counts."
                )
        outer = None if self.ignore is None else self.ignore.pixels(image, category, size)
        return region if outer is None else ~outer if region is None else region & ~outer

    @property
    def is_common(self) -> bool:
        """Whether all images of a category have the same region."""
        return all(one is None or one.is_common for one in (self.roi, self.ignore))

    def digest(self, images: Iterable[str]) -> str:
        """Return 16 hex digits of what is said about some images, whatever the files' names; "" where it is nothing."""
        text, images = "", list(images)
        for key, areas in (("roi", self.roi), ("ignore", self.ignore)):
            if areas is not None and (contents := self._contents_about(areas, images)):
                text += f"{key}|{contents}\n"
        return hashlib.sha256(text.encode()).hexdigest()[:16] if text else ""

    def _contents_about(self, areas: Areas, images: Sequence[str]) -> list[str]:
        """Return digests of what files say about some images, or the areas of their categories."""
        if areas.is_by_category:
            categories = sorted({self._category.get(image, "") for image in images} & set(areas.of_category))
            return [f"{category}: {areas.of_category[category].content}" for category in categories]
        files = [areas.files.get(image) for image in images] if areas.files else [areas.place]
        return [self._content(file) for file in files]

    def _content(self, file: Path | None) -> str:
        if file is not None and file not in self._contents:
            self._contents[file] = hashlib.sha256(file.read_bytes()).hexdigest()
        return "" if file is None else self._contents[file]


def fitted(region: np.ndarray, size: Size, owner: str) -> np.ndarray:
    """Return a region (H, W) bool at an image's size. Raises :class:`BadData` where the proportions are others."""
    height, width = region.shape
    if (height, width) == size:
        return region
    if not have_same_proportions((height, width), size):
        sizes = f"{height}x{width} (height x width), but an image is {size[0]}x{size[1]}"
        raise BadData(f"{owner} is a region of {sizes}. Draw it on an image of the same proportions.")
    return image_io.resized(region, *size)


def have_same_proportions(first: Size, second: Size) -> bool:
    """Return whether two sizes differ by nothing but a factor and rounding."""
    scale = second[1] / first[1]
    return abs(first[0] * scale - second[0]) <= 1 + scale


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


def _read(root: Path, images: Mapping[str, str], given: str) -> Areas:
    place = located(root, given)
    if place.is_dir():
        return _masks(place, list(images))
    if image_io.is_image(place):
        return Areas(place, Area(str(place), mask_io.read_mask(place)))
    if place.suffix.lower() in (".yaml", ".yml"):
        return _polygons(place, images, _yaml(place))
    kind, content = annotation_index.inspect(place)
    if not kind and place.suffix.lower() == ".json" and content is not None:
        return _polygons(place, images, content)
    annotated = [one for one in annotation_index.read_file(place)[1] if one.shapes]
    areas = {one.name: Area(str(place), None, one.shapes, one.size) for one in annotated}
    return _by_name(place, dict.fromkeys(images, ""), areas)


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


def _polygons(place: Path, images: Mapping[str, str], content: Any) -> Areas:
    try:
        if isinstance(content, Mapping) and set(content) != {"size", "polygons"}:
            areas = {str(name): _area(place, some) for name, some in content.items()}
            return _by_name(place, images, areas, several=True)
        return Areas(place, _area(place, content))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadData(
            f"{place} holds no polygons that can be read ({error}): write a list of polygons, [[x, y], …] each, or "
            "names of images or categories with such lists."
        ) from error


def _area(place: Path, content: Any) -> Area:
    """Read a list of polygons, or such a list with the size (width, height) at which they are drawn."""
    size: Size | None = None
    if isinstance(content, Mapping):
        width, height = (float(side) for side in content["size"]) if len(content.get("size") or ()) == 2 else (0.0, 0.0)
        if not (
            width.is_integer() and height.is_integer() and 0 < min(width, height) <= max(width, height) <= MAX_SIDE
        ):
            raise ValueError("a size is [width, height] in pixels")
        size, content = (int(height), int(width)), content.get("polygons")
    return Area(str(place), None, _shapes(content), size)


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


def _by_name(place: Path, images: Mapping[str, str], areas: Mapping[str, Area], several: bool = False) -> Areas:
    """Return areas by image and by category.

    The area of a file about one image holds for all, unless it is one of ``several``.
    """
    if not areas:
        raise BadData(f"{place} holds no shapes.")
    if len(areas) == 1 and not several:
        return Areas(place, next(iter(areas.values())))
    names, categories = ImageNames(images), set(images.values())
    of_category = {name: area for name, area in areas.items() if name in categories}
    found = {names.of(n, place.name, str(place)): area for n, area in areas.items() if n not in of_category}
    matched = {image: area for image, area in found.items() if image is not None}
    if not matched and not of_category:
        raise BadData(f"{place} is about none of the {len(images)} images: their names are others.")
    return Areas(place, of=matched, of_category=of_category)


def _yaml(place: Path) -> Any:
    try:
        return yaml.safe_load(layout.read_text(place))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadData(f"{place} cannot be read as YAML: {' '.join(str(error).split())[:200]}.") from error
