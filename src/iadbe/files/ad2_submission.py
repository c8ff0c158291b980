"""The archive that the evaluation server of MVTec AD 2 takes: its layout, its files, and a check of all of them.

Source: "MVTecAD2_public_code_utils" of MVTec Software GmbH (2025), which state the layout, the number of images per
object, and what is checked: maps are single-channel TIFFs of half precision, masks single-channel PNGs of 0 and 255::

    NAME/anomaly_images/OBJECT/test_private/000_regular.tiff
    NAME/anomaly_images/OBJECT/test_private_mixed/000_mixed.tiff
    NAME/anomaly_images_thresholded/OBJECT/test_private/000_regular.png …

Without masks the server computes no metric that needs a threshold. Nothing else may lie in the archive.

Differs: the check here names every fault, not only the first. It also finds numbers that are not finite, and images of
another size than the data set's (where that is at hand) or than the map's.
"""

from __future__ import annotations

import importlib
import io
import os
import tarfile
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from iadbe import progress, system
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import decoding

MAPS, MASKS = "anomaly_images", "anomaly_images_thresholded"
ENDINGS = {MAPS: ".tiff", MASKS: ".png"}
SUFFIXES = {"test_private": "regular", "test_private_mixed": "mixed"}  # split -> end of its images' names
COUNTS = {  # images of each object in either split
    "can": 321, "fabric": 314, "fruit_jelly": 255, "rice": 277, "sheet_metal": 142, "vial": 276, "wallplugs": 232,
    "walnuts": 228,
}  # fmt: skip
MOST_BYTES = 2 * decoding.MAX_PIXELS  # of a file in an archive; a larger one is a mistake or an attack
SHOWN = 3  # names in a sentence

Sizes = Mapping[str, tuple[int, int] | None]  # "OBJECT/SPLIT/STEM" -> (height, width) of the image; None: not known


class CheckResult(NamedTuple):
    """What a check has found."""

    faults: tuple[str, ...]  # a sentence each; none: the server's own checks pass
    notes: tuple[str, ...]
    maps: int
    masks: int


def published_images() -> dict[str, None]:
    """Return the images of the whole published data set, whose sizes are not known here."""
    return {
        f"{name}/{split}/{number:03d}_{suffix}": None
        for name, count in COUNTS.items()
        for split, suffix in SUFFIXES.items()
        for number in range(count)
    }


def file_name(kind: str, image: str) -> str:
    """Return the path of an image's map (:data:`MAPS`) or mask (:data:`MASKS`) in the archive's folder."""
    return f"{kind}/{image}{ENDINGS[kind]}"


def write_map(path: Path, values: np.ndarray) -> None:
    """Write a map (H, W) float16 as TIFF, whole or not at all; deflated, because gzip gains little afterwards."""
    _write(path, lambda file: tifffile().imwrite(file, values, compression="zlib", photometric="minisblack"))


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a mask (H, W) bool as PNG of 0 and 255, whole or not at all."""
    _write(path, lambda file: Image.fromarray(mask.astype(np.uint8) * 255).save(file, "PNG"))


def tifffile() -> Any:
    """Return the package that reads and writes floating-point TIFFs. Raises :class:`Missing`."""
    try:
        return importlib.import_module("tifffile")
    except ImportError as error:
        raise Missing("maps of half precision need the package tifffile: pip install tifffile") from error


def _write(path: Path, write: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    with part.open("wb") as file:
        write(file)
    system.replace(part, path)


def pack(folder: Path, archive: Path) -> None:
    """Pack a folder's maps and masks as ``NAME.tar.gz``, in a folder NAME, whole or not at all."""
    name = archive.name.removesuffix(".tar.gz")
    files = sorted(p for kind in ENDINGS for p in (folder / kind).rglob(f"*{ENDINGS[kind]}") if p.name[0] != ".")
    part = archive.with_name(f".{archive.name}.part")
    with tarfile.open(part, "w:gz", compresslevel=1) as tar:
        for number, path in enumerate(files):
            about = tarfile.TarInfo(f"{name}/{path.relative_to(folder).as_posix()}")
            about.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(about, file)
            progress.report("pack", number + 1, len(files))
    system.replace(part, archive)


def check(path: Path, images: Sizes) -> CheckResult:
    """Check an archive or a folder against the images that it must cover; files are read one at a time."""
    if not path.exists():
        raise BadConfig(f"there is no archive and no folder {path.absolute()}.")
    state = _Check(images)
    files = _in_folder(path) if path.is_dir() else _in_archive(path)
    for number, (name, data) in enumerate(files):
        state.add(name, data)
        progress.report("check", number + 1, 2 * len(images))
    return state.result()


def _in_folder(folder: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield the files of a folder; None for one that is too large to be read."""
    for here, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            relative = (Path(here) / name).relative_to(folder).as_posix()
            plain = (Path(here) / name).stat().st_size <= MOST_BYTES
            yield f"{folder.name}/{relative}", (Path(here) / name).read_bytes() if plain else None


def _in_archive(archive: Path) -> Iterator[tuple[str, bytes | None]]:
    """Yield the files of an archive; None for what is not a plain file, or is too large to be read."""
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                if member.isdir():
                    continue
                file = tar.extractfile(member) if member.isreg() and member.size <= MOST_BYTES else None
                data = None if file is None else file.read()
                if data is not None and len(data) < member.size:
                    raise EOFError("it ends within a file")
                yield member.name.removeprefix("./"), data
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise BadData(f"{archive} is no tar archive, or is incomplete ({error}). Make it again.") from error


@dataclass
class _Check:
    """The state of a check: what was seen, and files with the same fault by fault."""

    images: Sizes
    seen: dict[str, set[str]] = field(default_factory=lambda: {kind: set() for kind in ENDINGS})
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)  # of the first of map and mask
    wrong: dict[tuple[str, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )  # of files, by folder and fault
    tops: set[str] = field(default_factory=set)

    def add(self, name: str, data: bytes | None) -> None:
        """Check one file."""
        top, _, inner = name.partition("/")
        if top in ENDINGS:  # packed without a folder around
            top, inner = "", name
        self.tops.add(top)
        kind, _, rest = inner.partition("/")
        folder, _, last = inner.rpartition("/")
        image = rest.removesuffix(ENDINGS.get(kind, ""))
        if kind not in ENDINGS or image == rest or image not in self.images:
            self.wrong[folder or ".", "do not belong there"].append(last)
            return
        self.seen[kind].add(image)
        fault = "are no plain files, or too large" if data is None else self._fault(kind, image, data)
        if fault:
            self.wrong[folder, fault].append(last)

    def _fault(self, kind: str, image: str, data: bytes) -> str:
        """Return what is wrong with a file, or ""."""
        try:
            values = _map_values(data) if kind == MAPS else np.asarray(_png(data))
        except Missing:
            raise
        except Exception:  # a decoder fed with a broken file may raise anything at all
            return f"cannot be read as {ENDINGS[kind][1:].upper()}"
        if values.ndim != 2:
            return "do not have one channel"
        if kind == MAPS and values.dtype != np.float16:
            return f"are {values.dtype} instead of float16"
        if kind == MAPS and not np.isfinite(values).all():
            return "hold numbers that are not finite"
        if kind == MASKS and not np.isin(values, (0, 255)).all():
            return "hold values other than 0 and 255"
        expected = self.images[image]
        if expected is not None and values.shape != expected:
            return f"are not of their image's size, such as {_size(values.shape)} instead of {_size(expected)}"
        if values.shape != self.sizes.setdefault(image, values.shape):
            return f"differ in size from their {'map' if kind == MASKS else 'mask'}"
        return ""

    def result(self) -> CheckResult:
        """Return all sentences."""
        faults = []
        if len(self.tops) != 1 or self.tops == {""}:
            found = ", ".join(sorted(t or "no folder" for t in self.tops)[:SHOWN]) or "nothing"
            faults.append(f"the archive must hold one folder with {MAPS} in it; found is {found}.")
        kinds = [kind for kind in ENDINGS if kind == MAPS or self.seen[kind]]
        folders: dict[str, list[str]] = defaultdict(list)
        for image in self.images:
            folders[image.rpartition("/")[0]].append(image)
        for kind in kinds:
            for folder, images in sorted(folders.items()):
                missing = sorted(set(images) - self.seen[kind])
                if missing:
                    names = [f"{PurePosixPath(image).name}{ENDINGS[kind]}" for image in missing]
                    faults.append(f"{kind}/{folder} lacks {len(missing)} of {len(images)} files: {_some(names)}.")
        faults += [f"{folder}: {_some(names)} {fault}." for (folder, fault), names in sorted(self.wrong.items())]
        notes = [] if self.seen[MASKS] else [f"without {MASKS} the server computes no metric that needs a threshold."]
        return CheckResult(tuple(faults), tuple(notes), len(self.seen[MAPS]), len(self.seen[MASKS]))


def _map_values(data: bytes) -> np.ndarray:
    with tifffile().TiffFile(io.BytesIO(data)) as file:
        decoding.check_size(Path("map"), int(file.pages[0].imagewidth), int(file.pages[0].imagelength))
        return np.asarray(file.asarray())


def _png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data), formats=["PNG"])
    decoding.check_size(Path("mask"), image.width, image.height)
    image.load()
    return image


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(sorted(names)[:SHOWN]) + more


def _size(shape: tuple[int, ...]) -> str:
    return f"{shape[0]} x {shape[1]}"
