"""Synthetic images of four parts with pixel-exact masks; nothing is downloaded.

The categories are a circuit board, a woven fabric, a brushed metal sheet and a lock washer. Each has 15 normal test
images and four kinds of defects with six images each, from 000 (hardest to see) to 005 (easiest).
``Toy().export("toy")`` writes the dataset to disk in the layout of MVTec AD.

With ``depth=true`` there is one other category instead, a casting, whose depth is drawn too. It is apart, so that what
counts or averages the images of ``toy`` stays as it is; ``export`` then writes the layout of MVTec 3D-AD. So is the one
of ``fine=true``, at sizes from 1024 to 2048: a panel of soldered pads, with defects below a thousandth of its area.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Collection
from contextlib import suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe import registry, system
from iadbe.cache import cache_folder
from iadbe.dataset import Dataset
from iadbe.drawing import DISTANCE, WIDTH, Drawing, RenderedImage, render
from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import image_io
from iadbe.files.depth import write_points
from iadbe.types import Sample

TEST_GOOD = 15  # images of each category
IMAGES_PER_DEFECT = 6  # images of each kind of defect


class Toy(Dataset):
    """Rendered on demand, identical on every machine. An image depends on its id and ``size``, not on ``count``."""

    gives: frozenset[str] = frozenset({"image", "mask"})
    focal_length: float = DISTANCE / WIDTH
    added: ClassVar[dict[str, bool]] = {"depth": False, "fine": False}
    licence = "Apache-2.0"
    ranges = {"size": (256, 1024), "count": (1, 10_000)}  # in requests to a server

    def __init__(
        self, root: str = "", size: int = 256, count: int = 40, depth: bool = False, fine: bool = False
    ) -> None:
        """Set the size and the number of images.

        Args:
            root: not used, because the images are rendered, not read
            size: height and width of an image in pixels, 256 to 1024; with ``fine`` 1024 to 2048
            count: number of training images of each category
            depth: the category with depth instead of the four without
            fine: the category of large images with small defects instead
        """
        least, most = (1024, 2048) if fine else (256, 1024)
        if not least <= size <= most:
            which = " with fine=true" if fine else ""
            raise BadConfig(f"a toy image{which} cannot be {size} pixels wide. Give a size from {least} to {most}.")
        if depth and fine:
            raise BadConfig("toy has no category that is both fine and has depth. Give one of the two.")
        if count < 1:
            raise BadConfig(f"{count} training images are too few. Give a count of at least 1.")
        self.root = Path(root)
        self.size = size
        self.count = count
        self.with_depth, self.fine = depth, fine
        self.gives = self.gives | {"depth"} if depth else self.gives

    @property
    def categories(self) -> tuple[str, ...]:
        drawings = registry.names("drawings")
        kinds = {d: registry.card("drawings", d) for d in drawings}
        return tuple(d for d, c in kinds.items() if (c.get("relief"), c.get("fine")) == (self.with_depth, self.fine))

    def samples(self) -> tuple[Sample, ...]:
        return tuple(s for category in self.categories for s in self._samples(category))

    def image(self, sample: Sample) -> np.ndarray:
        if (cached := _read_cached(self._file(sample.image))) is not None:
            return cached
        pixels = self._rendered(sample).image.copy()
        _write_cached(self._file(sample.image), pixels)
        return pixels

    def mask(self, sample: Sample) -> np.ndarray | None:
        if sample.mask is None:
            return None
        if (cached := _read_cached(self._file(sample.mask))) is not None:
            return cached[:, :, 0] > 0
        mask = self._rendered(sample).mask.copy()
        _write_cached(self._file(sample.mask), mask.astype(np.uint8) * 255)
        return mask

    def depth(self, sample: Sample) -> np.ndarray | None:
        """Return the distance from the camera in metres, (H, W) float32; None without ``depth=true``."""
        if sample.depth is None:
            return None
        if (cached := _read_cached_depth(self._file(sample.depth))) is not None:
            return cached
        depth = self._rendered(sample).depth
        if depth is not None:
            _write_cached(self._file(sample.depth), depth)
        return None if depth is None else depth.copy()

    def digest(self, categories: Collection[str] = ()) -> str:
        """Return 16 hex digits of the version, the size and the names; the images follow from them."""
        mine = [s for s in self.samples() if not categories or s.category in categories]
        names = "".join(f"{s.id}\n" for s in mine) + self.region_digest(mine)
        return hashlib.sha256(f"{self.version}|{self.size}|{self.count}\n{names}".encode()).hexdigest()[:16]

    def whole_digest(self) -> str:
        """Return the digest of version 0.1: of all categories together."""
        return self.digest()

    def export(self, root: str | Path) -> None:
        """Write every image and mask below ``root`` in the layout of MVTec AD, which ``mvtec_ad`` reads.

        With depth, images, masks and points are written in the layout of MVTec 3D-AD, which ``mvtec_3d`` reads.
        """
        if self.with_depth:
            self._export_points(Path(root))
            return
        for sample in self.samples():
            image_io.write(Path(root) / sample.image, self.image(sample))
            mask = self.mask(sample)
            if mask is not None and sample.mask is not None:
                image_io.write(Path(root) / sample.mask, mask.astype(np.uint8) * 255)

    def _export_points(self, root: Path) -> None:
        for sample in self.samples():
            folder, _, name = sample.id.rpartition("/")
            image, mask, points = self.image(sample), self.mask(sample), self.points(sample)
            image_io.write(root / folder / "rgb" / f"{name}.png", image)
            painted = np.zeros(image.shape[:2], np.uint8) if mask is None else mask.astype(np.uint8) * 255
            image_io.write(root / folder / "gt" / f"{name}.png", painted)
            if points is not None:
                write_points(root / folder / "xyz" / f"{name}.tiff", points)

    def _samples(self, category: str) -> list[Sample]:
        kinds = _drawing(category).defects
        groups = [("train", "good", self.count), ("test", "good", TEST_GOOD)]
        groups += [("test", kind, IMAGES_PER_DEFECT) for kind in sorted(kinds)]
        return [
            _sample(category, split, kind, n, self.with_depth) for split, kind, count in groups for n in range(count)
        ]

    def _file(self, name: str) -> Path:
        """Return the cache path of an image, so that the processes of a grid render it once."""
        return cache_folder() / "toy" / f"{_source_digest()}-{self.size}" / name

    def _rendered(self, sample: Sample) -> RenderedImage:
        if sample.category not in self.categories:
            hint = did_you_mean(sample.category, self.categories)
            raise BadData(f"toy has no image {sample.id}: there is no category {sample.category!r}.{hint}")
        number = int(sample.image.rpartition("/")[2].partition(".")[0])
        return _rendered(sample.category, sample.id, sample.defect, number / (IMAGES_PER_DEFECT - 1), self.size)


def _drawing(category: str) -> Drawing:
    return registry.load("drawings", category)()


def _sample(category: str, split: str, defect: str, number: int, depth: bool) -> Sample:
    name = f"{category}/{split}/{defect}/{number:03d}"
    mask = None if defect == "good" else f"{category}/ground_truth/{defect}/{number:03d}_mask.png"
    return Sample(name, category, split, defect, f"{name}.png", mask, f"{name}_depth.npy" if depth else None)


@cache
def _source_digest() -> str:
    """Return a digest of the rendering code: it names the cache folder, so images of older code are not used."""
    here = Path(__file__).parent.parent
    files = [here / "drawing.py", *sorted((here / "drawings").glob("*.py"))]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()[:12]


def _read_cached(file: Path) -> np.ndarray | None:
    try:
        return image_io.read_rgb(file) if file.is_file() else None
    except BadData:
        return None


def _read_cached_depth(file: Path) -> np.ndarray | None:
    try:
        return np.load(file, allow_pickle=False) if file.is_file() else None
    except (OSError, ValueError, EOFError):
        return None


def _write_cached(file: Path, pixels: np.ndarray) -> None:
    """Write an image or depth atomically; where that fails, it is rendered again next time."""
    part = file.with_name(f".{os.getpid()}-{threading.get_ident()}-{file.name}")
    try:
        if file.suffix == ".npy":
            part.parent.mkdir(parents=True, exist_ok=True)
            np.save(part, pixels, allow_pickle=False)
        else:
            image_io.write(part, pixels)
        system.replace(part, file)
    except OSError:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@lru_cache(maxsize=4)  # the mask is read just after the image
def _rendered(category: str, name: str, defect: str, severity: float, size: int) -> RenderedImage:
    return render(_drawing(category), name, defect, severity, size)
