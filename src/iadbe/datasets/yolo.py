"""A YOLO dataset (detection or segmentation) as normal and defective images: ``data.yaml``, images, labels.

Differs:
    * An image without labels (no label file, or an empty one) is normal. An image with labels is a defect; its kind is
      its most frequent class.
    * A polygon is filled as in Ultralytics (corners rounded down, edges included). A box becomes a filled rectangle, so
      pixel metrics on boxes are coarse.
    * The normal images of ``train`` are trained on. Those of ``val`` and ``test`` are tested, with their defects.
    * Defects in ``train`` are tested too, unless ``defects_in_train`` is "drop".
    * Where the file names no normal images to test, a seeded share of the normal ones is held out.
    * Images of a ``group``, by default Roboflow's augmented copies of one image, are in one split.
    * ``path`` is searched beside the file, beside its folder and in the current folder, because tools disagree on it.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from PIL import Image, ImageDraw

from iadbe import system
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, number_of
from iadbe.files import image_io, layout
from iadbe.files.bad_labels import BadLabels
from iadbe.files.groups import groups_of, in_groups_of
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

InTrain = Literal["test", "drop"]
_ROBOFLOW = re.compile(r"([^/]+)\.rf\.[0-9a-fA-F]{8,}")  # SOURCE.rf.HASH.jpg: augmented copies of one image
Shape = tuple[int, tuple[float, ...]]  # number of the class; x0 y0 x1 y1 … of a polygon, as shares of the image


class YOLO(Dataset):
    """One category; every class of the labels is a kind of defect."""

    title: ClassVar[str] = "a YOLO dataset"
    licence: ClassVar[str] = "yours"
    added: ClassVar[dict[str, Any]] = {"group": "", "bad_labels": "error"}
    layout_description: ClassVar[str] = "data.yaml with train and names (YOLO)"

    def __init__(
        self,
        root: str = "",
        file: str = "",
        defects_in_train: Literal["test", "drop"] = "test",
        good_names: tuple[str, ...] = ("good", "ok", "normal"),
        normal_split_ratio: float = 0.2,
        name: str = "",
        seed: int = 0,
        group: str = "",
        bad_labels: Literal["error", "drop"] = "error",
    ) -> None:
        """Index a folder.

        Args:
            root: folder with data.yaml
            file: name of the YAML file, where there are several
            defects_in_train: test the labelled images in train, or drop them
            good_names: classes that are not defects
            normal_split_ratio: share of the normal images that is held out where the file names none to test
            name: the category's name; by default the folder's
            seed: of the held-out images
            group: dependent images that stay in one split: a regular expression on the path, or FILE.csv:COLUMN
            bad_labels: raise an error that names all label files that cannot be read, or drop their images
        """
        super().__init__(root)
        if defects_in_train not in get_args(InTrain):
            raise BadConfig(f"yolo.defects_in_train is {defects_in_train!r}, not one of test, drop.")
        self._bad_labels = BadLabels(bad_labels, "yolo.bad_labels")
        found = self.root / file if file else find_yaml(self.root)
        if found is None or not found.is_file():
            raise BadData(f"there is no {file or 'data.yaml with train and names'} in {self.root}. Name it with file.")
        self.file = found
        self.name = name or Path(os.path.abspath(self.root)).name
        self.defects_in_train, self.seed, self.group = defects_in_train, seed, group
        self.normal_split_ratio = layout.check_share("yolo.normal_split_ratio", normal_split_ratio)
        self._good_names = {n.lower() for n in good_names}
        self._config = layout.read_yaml(self.file)
        self._names = _class_names(self._config, self.file)
        self._parts = _parts(self._config, self.file)

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder with a YOLO dataset's YAML file, or the file itself."""
        file = find_yaml(folder)
        return None if file is None else LayoutMatch(f"a YOLO dataset ({file.name})", {"file": file.name})

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category."""
        return (self.name,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, by path. Reads the label files, no images."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the labels of an image as (H, W) bool, rasterised at the image's size."""
        if sample.mask is None:
            return None
        height, width = image_io.size(self.root / sample.image)
        return rasterise([points for _, points in self._defects(self.root / sample.mask)], height, width)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        tested = set(self._parts["test"])
        kinds = self._kinds(sorted({*self._parts["train"], *tested}))
        good = [path for path, kind in kinds.items() if kind == "good"]
        groups = self._groups([self._relative(p) for p in kinds])
        if not any(path in tested for path in good) or all(path in tested for path in good):
            held_out = layout.hold_out(
                [self._relative(p) for p in good], self.normal_split_ratio, self.seed, groups=groups
            )
            tested = {p for p in tested if kinds[p] != "good"} | {p for p in good if self._relative(p) in held_out}
        in_test = [self._relative(p) for p, kind in kinds.items() if kind != "good" or p in tested]
        moved = in_groups_of([self._relative(p) for p in good if p not in tested], in_test, groups)
        found = []
        for path, kind in kinds.items():
            if kind != "good" and path not in tested and self.defects_in_train == "drop":
                continue
            where = self._relative(path)
            is_train = kind == "good" and path not in tested and where not in moved
            mask = None if kind == "good" else self._relative(_labels_of(path))
            id_, split = f"{self.name}/{where}", "train" if is_train else "test"
            found.append(Sample(id_, self.name, split, kind, where, mask, group=groups.get(where, "")))
        return tuple(found)

    def _groups(self, paths: list[str]) -> dict[str, str]:
        """Return path -> group by the parameter; by default, Roboflow's copies of one image are a group."""
        if self.group:
            return groups_of(self.root, self.group, paths, "yolo.group")
        return {path: match[1] for path in paths if (match := _ROBOFLOW.search(path))}

    def _kinds(self, paths: list[Path]) -> dict[Path, str]:
        """Return image -> kind, without images whose labels cannot be read if these are dropped.

        Raises :class:`BadData` that names all of the label files otherwise.
        """
        kinds = {}
        for path in paths:
            with self._bad_labels.collected():
                kinds[path] = self._kind(path)
        self._bad_labels.check("label files")
        return kinds

    def _kind(self, path: Path) -> str:
        defects = self._defects(_labels_of(path))
        if not defects:
            return "good"
        return Counter(self._names[number] for number, _ in defects).most_common(1)[0][0]  # the first of equal counts

    def _defects(self, labels: Path) -> list[Shape]:
        shapes = read_labels(labels, len(self._names)) if labels.is_file() else []
        return [s for s in shapes if self._names[s[0]].lower() not in self._good_names]

    def _relative(self, path: Path) -> str:
        return system.relative(path, self.root)


def find_yaml(folder: Path) -> Path | None:
    """Return the folder's YAML file that describes a YOLO dataset, or None; ``folder`` may be the file itself."""
    files = sorted(folder.iterdir()) if folder.is_dir() else [folder]
    files = [p for p in files if p.suffix.lower() in (".yaml", ".yml") and p.is_file()]
    for file in sorted(files, key=lambda p: p.stem != "data"):
        config = layout.read_yaml(file)
        if "train" in config and ("names" in config or "nc" in config):
            return file
    return None


def read_labels(file: Path, classes: int) -> list[Shape]:
    """Return the shapes of a label file; a box becomes a polygon. Raises :class:`BadData` naming file and line."""
    try:
        lines = layout.read_text(file).splitlines()
    except OSError as error:
        raise BadData(f"{file} cannot be read as labels: {error}.") from error
    shapes = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{file}, line {number}"
        try:
            first, *values = (float(v) for v in line.split())
        except ValueError as error:
            raise BadData(f"{where} holds something that is not a number: {line[:60]!r}.") from error
        if first not in range(classes):
            raise BadData(f"{where} names class {first:g}, but the YAML file has {number_of(classes, 'name')}, from 0.")
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise BadData(f"{where} has {len(values)} numbers after the class: 4 are a box, 6, 8, 10 … a polygon.")
        if not all(-0.01 <= v <= 1.01 for v in values):
            raise BadData(f"{where} has coordinates outside of 0 to 1: they must be shares of width and height.")
        if len(values) == 4:
            x, y, w, h = values
            left, top, right, bottom = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            values = [left, top, right, top, right, bottom, left, bottom]
        shapes.append((int(first), tuple(values)))
    return shapes


def rasterise(polygons: list[tuple[float, ...]], height: int, width: int) -> np.ndarray:
    """Return the union of polygons, x0 y0 x1 y1 … as shares of the image, as (H, W) bool."""
    drawn = Image.new("L", (width, height))
    pen = ImageDraw.Draw(drawn)
    for points in polygons:
        x = np.clip(np.floor(np.array(points[::2]) * width), 0, width - 1).astype(int)
        y = np.clip(np.floor(np.array(points[1::2]) * height), 0, height - 1).astype(int)
        pen.polygon(list(zip(x.tolist(), y.tolist(), strict=True)), fill=1, outline=1)
    return np.asarray(drawn) > 0


def _labels_of(path: Path) -> Path:
    """Return where an image's labels are: ``images`` becomes ``labels``, the ending becomes ``.txt``."""
    parts = list(path.with_suffix(".txt").parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[:-1][::-1].index("images")
        parts[last] = "labels"
    return Path(*parts)


def _class_names(config: dict[str, Any], file: Path) -> tuple[str, ...]:
    names, count = config.get("names"), config.get("nc")
    if isinstance(names, dict):
        if sorted(names) != list(range(len(names))):
            raise BadData(f"{file}: the names must be numbered 0, 1, 2 … without a gap.")
        names = [names[i] for i in range(len(names))]
    if names is None:
        names = [f"class_{i}" for i in range(int(count or 0))]
    if not names or (count is not None and count != len(names)):
        raise BadData(f"{file}: nc is {count}, but there are {len(names)} names.")
    return tuple(str(n) for n in names)


def _parts(config: dict[str, Any], file: Path) -> dict[str, tuple[Path, ...]]:
    """Return the images that the file names to train and to test."""
    base, tried = system.user_path(str(config.get("path") or ".")), []
    for place in (file.parent / base, file.parent.parent / base, Path.cwd() / base, file.parent):
        if train := _images(place, config["train"]):
            break
        tried.append(str(place))
    else:
        raise BadData(f"{file}: found no images for train: {config['train']!r} in {', '.join(dict.fromkeys(tried))}.")
    tested: list[Path] = []
    for key in ("val", "valid", "test"):
        if (entry := config.get(key)) and not (found := _images(place, entry)) and key != "test":
            raise BadData(f"{file}: found no images for {key}: {entry!r} in {place}.")
        elif entry:
            tested += found
    return {"train": tuple(dict.fromkeys(train)), "test": tuple(dict.fromkeys(tested))}


def _images(base: Path, entry: Any) -> list[Path]:
    """Return the images of an entry: a folder, a text file that lists images, or several of these."""
    if isinstance(entry, (list, tuple)):
        return [path for one in entry for path in _images(base, one)]
    text = str(entry)
    place = base / text
    if not place.exists() and text.startswith("../"):
        place = base / text[3:]  # as some exporters write it, one level too high
    if place.suffix == ".txt" and place.is_file():
        lines = [line.strip() for line in layout.read_text(place).splitlines() if line.strip()]
        return [Path(os.path.abspath(_first(place.parent / line, base / line))) for line in lines]
    return [Path(os.path.abspath(place / name)) for name in layout.images_below(place)]


def _first(*places: Path) -> Path:
    return next((p for p in places if p.is_file()), places[0])
