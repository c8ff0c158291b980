"""The contract of a dataset: an index of samples by name, and a way to read one of them.

Making a dataset and asking for its index reads names only, never pixels, so planning a large grid is quick. The one
exception: where nothing but a mask tells whether an image is good (``labels_in_masks``), masks are read, once, and
what they say is kept in the cache.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import depth, image_io
from iadbe.types import Sample


class Region(NamedTuple):
    """One defect of an image, as the metric sPRO counts it: what is found of it is capped at its saturation.

    Its overlap is ``min(found pixels / (saturation * pixels of the mask), 1)``. The saturation is a share, not a
    number of pixels, so that it stays true when the mask is resized.
    """

    mask: np.ndarray  # (H, W) bool
    saturation: float = 1.0  # above 0 and up to 1; 1: the whole region must be found, as in PRO


class Dataset(ABC):
    """Images of one or more categories. Parameters come through ``__init__``; the first is always ``root``.

    ``counts`` are the published numbers of a category's images: (to train on, good ones held back for validation and
    test, defective), or (good, defective) where there is no official split; ``total`` is the same of all categories.
    ``archives`` are the files that hold the published data: for each ``url``, and as far as they are known ``sha256``
    or ``md5``, and ``file``, its name where the URL does not end in it. ``by_hand`` says how else to get the data.
    """

    version: ClassVar[int] = 1
    gives: frozenset[str] = frozenset({"image", "mask"})  # an instance may give less, if its folder holds less
    licence: ClassVar[str] = ""
    url: ClassVar[str] = ""  # the page that tells about the data
    title: ClassVar[str] = ""
    counts: ClassVar[dict[str, tuple[int, ...]]] = {}
    total: ClassVar[tuple[int, ...]] = ()
    archives: ClassVar[tuple[dict[str, Any], ...]] = ()
    by_hand: ClassVar[str] = ""  # a sentence, or several
    labels_in_masks: ClassVar[bool] = False
    looks_like: ClassVar[str] = ""  # how a folder of this kind is recognised, for the message when none is
    root: Path

    def __init__(self, root: str = "") -> None:
        """Look at a folder.

        Args:
            root: the folder that holds the data
        """
        if not root:
            raise BadConfig(f"{type(self).__name__} needs the folder of the data: --data.root DIR.")
        self.root = Path(root).expanduser().absolute()
        if not self.root.is_dir():
            raise BadData(f"there is no folder {self.root}. Give the folder of the data with --data.root DIR.")

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The names of what is inspected, sorted; only those that are present."""

    @abstractmethod
    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, in the same order on every machine. Reads names, never pixels."""

    def image(self, sample: Sample) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB. Raises :class:`BadData` naming the file."""
        return image_io.read_rgb(self.root / sample.image)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool, or None where there is none."""
        return None if sample.mask is None else image_io.read_mask(self.root / sample.mask)

    def regions(self, sample: Sample) -> tuple[Region, ...]:
        """Return the defects of an image one by one, none where there is no mask.

        They are the 8-connected parts of the mask, unless a dataset says what belongs together. Their union is the
        mask; they may overlap.
        """
        mask = self.mask(sample)
        if mask is None:
            return ()
        from scipy import ndimage

        parts, count = ndimage.label(mask, np.ones((3, 3)))
        return tuple(Region(parts == number) for number in range(1, count + 1))

    def depth(self, sample: Sample) -> np.ndarray | None:
        """Return the depth as (H, W) float32 in the dataset's unit, nan where it was not measured; None: there is none.

        Raises :class:`BadData` naming the file.
        """
        return None if sample.depth is None else depth.read(self.root / sample.depth)

    def digest(self) -> str:
        """Return 16 hex digits of the index: names, splits, labels and file sizes. It is part of a run's identity."""
        sha = hashlib.sha256()
        for s in self.samples():
            sizes = [_size(self.root / path) for path in (s.image, s.mask, s.depth) if path]
            sha.update(f"{s.id}|{s.category}|{s.split}|{s.defect}|{s.mask}|{sizes}\n".encode())
        return sha.hexdigest()[:16]


def _size(path: Path) -> int:
    """Return a file's bytes; of a folder of masks, of all its files."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.iterdir() if p.is_file())
    return path.stat().st_size if path.is_file() else 0


class Index:
    """Questions that a setting may ask of a dataset's samples."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = tuple(samples)
        self.categories = tuple(sorted({s.category for s in self.samples}))

    def train(self, category: str) -> tuple[Sample, ...]:
        """Return the good training images of a category."""
        return tuple(s for s in self._split(category, "train") if not s.is_anomaly)

    def val(self, category: str) -> tuple[Sample, ...]:
        """Return the good validation images that the dataset brings along, often none."""
        return tuple(s for s in self._split(category, "val") if not s.is_anomaly)

    def test(self, category: str) -> tuple[Sample, ...]:
        """Return the test images of a category, good and defective."""
        return self._split(category, "test")

    def anomalies(self, category: str) -> tuple[Sample, ...]:
        """Return the defective test images of a category."""
        return tuple(s for s in self.test(category) if s.is_anomaly)

    def _split(self, category: str, split: str) -> tuple[Sample, ...]:
        if category not in self.categories:
            hint = did_you_mean(category, self.categories)
            raise BadConfig(f"there is no category {category!r}.{hint} There are: {', '.join(self.categories)}.")
        return tuple(s for s in self.samples if s.category == category and s.split == split)
