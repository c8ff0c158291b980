"""Annotation files beside images: finds them, reads them and matches them to the images by name.

Formats: LabelMe and COCO in JSON (:mod:`iadbe.files.annotation_json`), CVAT in XML (:mod:`iadbe.files.cvat`). Names
in a file are compared with the names of the images; they are never opened, so no file can lead out of the data folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadbe import system
from iadbe.errors import BadData
from iadbe.files import annotation_json, cvat, layout
from iadbe.files.annotation_json import AnnotatedImage
from iadbe.files.shapes import Shape, fingerprint, rasterise

LARGEST = 2**29  # bytes of a file that is read
LABELME, COCO, CVAT, VOC = "LabelMe", "COCO", "CVAT", "Pascal VOC"
ENDINGS = (".json", ".xml")
FOLDERS = ("annotations", "labels")  # beside the images' folders
AUTO, NONE = "auto", "none"


@dataclass(frozen=True, slots=True)
class Annotation:
    """The shapes of one image, and the file that holds them."""

    file: str  # path relative to the root
    shapes: tuple[Shape, ...]
    size: tuple[int, int] | None = None  # (height, width) of the image that the file states

    def pixels(self, root: Path, image: str, size: tuple[int, int], labels: Collection[str]) -> np.ndarray:
        """Return the pixels (H, W) bool of the shapes with some labels, for an image of (height, width)."""
        owner = f"{root / self.file}"
        if self.size is not None and self.size != size:
            stated, true = (f"{height}x{width}" for height, width in (self.size, size))
            raise BadData(f"{owner} was made for {image} of {stated} (height x width), but the image is {true}.")
        return rasterise([s for s in self.shapes if s.label in labels], *size, owner)

    def labels(self) -> Counter[str]:
        """Return label -> number of shapes."""
        return Counter(shape.label for shape in self.shapes)


class Labels(NamedTuple):
    """Labels that mean no defect, in lower case."""

    good: frozenset[str] = frozenset()  # of what is no defect
    roi: frozenset[str] = frozenset()  # of what counts
    ignore: frozenset[str] = frozenset()  # of what does not count


NO_LABELS = Labels()


@dataclass(frozen=True)
class Annotations:
    """All annotations of some images."""

    root: Path
    of: Mapping[str, Annotation] = field(default_factory=dict)  # image, relative to the root -> its annotation
    files: Mapping[str, str] = field(default_factory=dict)  # that hold shapes of them, likewise -> their kind
    labels: Labels = NO_LABELS

    def kind(self, image: str) -> str:
        """Return the most frequent label of an image's defects, the first of equal counts; "" where there is none."""
        counts = {label: n for label, n in self._labels(image).items() if self._is_defect(label)}
        return max(counts, key=lambda label: counts[label]) if counts else ""

    def defects(self, image: str, size: tuple[int, int]) -> np.ndarray:
        """Return the pixels of an image's defects, (H, W) bool."""
        return self._pixels(image, size, {label for label in self._labels(image) if self._is_defect(label)})

    def region(self, image: str, size: tuple[int, int]) -> np.ndarray | None:
        """Return the pixels that count, (H, W) bool: within shapes of ``roi``, outside of ``ignore``; None: all."""
        inner, outer = ({label for label in self._labels(image) if label.lower() in some} for some in self.labels[1:])
        if not inner and not outer:
            return None
        region = self._pixels(image, size, inner) if inner else np.ones(size, bool)
        return region & ~self._pixels(image, size, outer) if outer else region

    def has_region(self, image: str) -> bool:
        """Say whether an image has shapes that make a region."""
        return any(label.lower() in self.labels.roi | self.labels.ignore for label in self._labels(image))

    def region_digest(self, images: Iterable[str]) -> str:
        """Return a digest of the shapes that make regions of images, "" where there are none."""
        sha, some = hashlib.sha256(), False
        for image in images:
            own = [s for s in self._shapes(image) if s.label.lower() in self.labels.roi | self.labels.ignore]
            some = some or bool(own)
            sha.update(f"{[(shape.label.lower(), fingerprint(shape)) for shape in own]}\n".encode())
        return sha.hexdigest()[:16] if some else ""

    def _shapes(self, image: str) -> tuple[Shape, ...]:
        return self.of[image].shapes if image in self.of else ()

    def _is_defect(self, label: str) -> bool:
        return label.lower() not in frozenset().union(*self.labels)

    def _labels(self, image: str) -> Counter[str]:
        return self.of[image].labels() if image in self.of else Counter()

    def _pixels(self, image: str, size: tuple[int, int], labels: Collection[str]) -> np.ndarray:
        return self.of[image].pixels(self.root, image, size, labels) if labels else np.zeros(size, bool)


def read(root: Path, images: Sequence[str], given: str = AUTO, **labels: Iterable[str]) -> Annotations:
    """Return the annotations of images (paths relative to ``root``).

    ``given`` is a file or folder, "auto" for the files beside the images, in the folders above them and in folders
    named ``annotations`` or ``labels`` there, or "none". ``labels`` are those of :class:`Labels`. Raises
    :class:`BadData` for a file that is damaged, given and of no known format, or about none of the images.
    """
    good, roi, ignore = (frozenset(n.lower() for n in labels.get(key, ())) for key in ("good", "roi", "ignore"))
    known = Labels(good, roi, ignore)
    if given == NONE:
        return Annotations(root, labels=known)
    files = list(_beside(root, images)) if given == AUTO else _named(root, given)
    places = ImageNames(images, root)
    found: dict[str, Annotation] = {}
    used: dict[str, str] = {}
    unknown = []
    for file in files:
        matched = 0
        kind, images_of = read_file(root / file, given != AUTO)
        unknown += [file] if not kind and os.path.splitext(file)[0] in places.by_stem else []
        for image in images_of:
            place = places.of(image.name, file, str(root / file))
            if place is None:
                continue
            matched, used[file] = matched + 1, kind
            if not image.shapes:
                continue
            if place in found:
                raise BadData(
                    f"{root / found[place].file} and {file} both annotate {place}. Name the right file or folder with "
                    "--data.annotations."
                )
            found[place] = Annotation(file, image.shapes, image.size)
        if given != AUTO and not matched and len(files) == 1:
            raise BadData(f"{root / file} annotates none of the {len(images)} images: their names are others.")
    _check_json(root, unknown)
    return Annotations(root, found, used, known)


def _check_json(root: Path, files: Sequence[str]) -> None:
    """Raise :class:`BadData` where files named like images end in .json and are none: they are damaged annotations."""
    damaged = []
    for file in files:
        try:
            if file.lower().endswith(".json") and (root / file).stat().st_size <= LARGEST:
                json.loads(layout.read_text(root / file))
        except (BadData, ValueError, RecursionError):
            damaged.append(str(root / file))
    if damaged:
        named = ", ".join(damaged[:3]) + (f" and {len(damaged) - 3} others" if len(damaged) > 3 else "")
        verb = "is not valid JSON" if len(damaged) == 1 else "are not valid JSON"
        raise BadData(f"{named} {verb}, so annotations are lost. Save again, or read none: --data.annotations none.")


def read_file(path: Path, required: bool = True) -> tuple[str, list[AnnotatedImage]]:
    """Return the kind of an annotation file and its images. Raises :class:`BadData` for a damaged one.

    A file of another kind is an error too if it is ``required``; else it has no images.
    """
    kind, content = inspect(path)
    if kind == LABELME:
        return kind, [annotation_json.read_labelme(content, str(path))]
    if kind == COCO:
        return kind, annotation_json.read_coco(content, str(path))
    if kind == CVAT:
        return kind, cvat.read_cvat(path)
    if required:
        what = "holds annotations of Pascal VOC, which are boxes" if kind == VOC else "is no annotation file"
        raise BadData(f"{path} {what}. LabelMe and COCO (JSON) and CVAT (XML, `CVAT for images 1.1`) are read.")
    return kind, []


def inspect(path: Path) -> tuple[str, Any]:
    """Return the kind of an annotation file, "" for another file, and its content if it is JSON."""
    try:
        if path.suffix.lower() == ".xml":
            with path.open("rb") as file:
                start = file.read(4096)
            return (CVAT if b"<annotations" in start else VOC if b"<annotation>" in start else ""), None
        if path.suffix.lower() != ".json" or path.stat().st_size > LARGEST:
            return "", None
        content = json.loads(layout.read_text(path))
    except (OSError, ValueError, RecursionError):
        return "", None
    kind = LABELME if annotation_json.is_labelme(content) else COCO if annotation_json.is_coco(content) else ""
    return kind, content


def folders_of(images: Iterable[str]) -> set[str]:
    """Return the folders of images and all folders above them, relative to the root, which is "."."""
    folders = {"."}
    for folder in {posixpath.dirname(image) for image in images}:
        parts = folder.split("/") if folder else []
        folders |= {"/".join(parts[:n]) or "." for n in range(len(parts) + 1)}
    return folders


def _beside(root: Path, images: Iterable[str]) -> Iterator[str]:
    folders = folders_of(images)
    folders |= {posixpath.normpath(f"{folder}/{name}") for folder in folders for name in FOLDERS}
    for folder in sorted(folders):
        for name in layout.files(root / folder):
            if name.lower().endswith(ENDINGS):
                yield posixpath.normpath(f"{folder}/{name}")


def _named(root: Path, given: str) -> list[str]:
    path = Path(os.path.abspath(root / system.user_path(given)))
    if path.is_file():
        return [system.relative(path, root)]
    if not path.is_dir():
        raise BadData(f"there is no file or folder {path} with annotations.")
    names = [path / name for name in layout.files(path) if name.lower().endswith(ENDINGS)]
    if not names:
        raise BadData(f"{path} holds no annotation files (.json, .xml).")
    return [system.relative(name, root) for name in names]


class ImageNames:
    """Finds the image that a name in an annotation file means."""

    def __init__(self, images: Iterable[str], root: Path | None = None) -> None:
        """Take the images' paths relative to ``root``; None: it is not known which other files lie there."""
        self.root = root
        self.images = frozenset(images)
        self.by_stem = {os.path.splitext(image)[0]: image for image in self.images}
        self.by_end: dict[str, list[str]] = defaultdict(list)  # "b/c.png" -> images whose path ends so
        for image in sorted(self.images):
            parts = image.split("/")
            for start in range(len(parts)):
                self.by_end["/".join(parts[start:])].append(image)

    def of(self, name: str, file: str, owner: str) -> str | None:
        """Return the image that ``name`` in ``file`` means; None: it is not among the images.

        In this order: the image beside the file with the file's own stem (LabelMe), the path from the file's folder,
        the image beside it again where the name with its folders ends in the same stem, and the longest end of the
        path that only one image has. A path to another file of the data means that file, not an image of its name.
        """
        name = name.replace("\\", "/")
        stem = os.path.splitext(file)[0]
        if file.lower().endswith(".json") and stem in self.by_stem and "/" not in name.removeprefix("./"):
            return self.by_stem[stem]
        joined = posixpath.normpath(f"{posixpath.dirname(file)}/{name}".lstrip("/"))
        if joined in self.images:
            return joined
        parts = [part for part in name.split("/") if part not in ("", ".", "..")]
        if not parts or self._is_other(joined) or self._is_other("/".join(parts)):
            return None
        is_own = os.path.splitext(parts[-1])[0] == posixpath.basename(stem)
        if is_own and file.lower().endswith(".json") and stem in self.by_stem:
            return self.by_stem[stem]
        for start in range(len(parts)):
            ends = self.by_end.get("/".join(parts[start:]), [])
            if len(ends) == 1:
                return ends[0]
            if ends:
                raise BadData(
                    f"{owner} names the image {name}, but that is the name of {len(ends)} images (for example "
                    f"{ends[0]} and {ends[1]}): write the path from the data folder in the file."
                )
        return None

    def _is_other(self, path: str) -> bool:
        """Return whether a path, relative to the root, is a file of the data that is not among the images."""
        if self.root is None or path in self.images or path.startswith(("../", "/")):
            return False
        return (self.root / path).is_file()
