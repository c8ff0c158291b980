"""The contract of a dataset: an index of samples, and methods that read one of them.

Making a dataset and its index reads names, never pixels, so planning a large grid is quick. One exception: where only
the masks show whether an image is normal (``labels_in_masks``), they are read once and the labels are cached.
"""

from __future__ import annotations

import hashlib
import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from iadbe import system
from iadbe.errors import BadConfig, BadData, UnknownName, did_you_mean
from iadbe.files import channels as bands
from iadbe.files import depth, image_io, mask_io, pages
from iadbe.files.region_files import RegionFiles
from iadbe.types import IntensityRange, Sample


class Defect(NamedTuple):
    """One defect of an image with its saturation threshold, for the metric sPRO.

    Its overlap is ``min(found pixels / (saturation * pixels of the mask), 1)``. The saturation is a share, not a
    number of pixels, so it stays valid when the mask is resized.
    """

    mask: np.ndarray  # (H, W) bool
    saturation: float = 1.0  # above 0 and up to 1; 1: the whole defect must be found, as in PRO


class Dataset(ABC):
    """Images of one or more categories. Parameters come through ``__init__``; the first is always ``root``.

    Class attributes, all literals:

    * ``counts``: the published numbers of images per category: (training, normal validation and test, defective), or
      (normal, defective) where there is no official split; ``total``: the same of all categories.
    * ``archives``: the files of the published data: ``url``, ``sha256`` or ``md5`` where known, and ``file``, the name
      where the URL does not end in it.
    * ``manual_download``: how else to get the data.
    * ``official_metrics``: rows of the dataset's own evaluation, computed beside the usual ones.
    * ``layout_description``: the layout that :meth:`recognise` looks for, in a few words.
    """

    version: ClassVar[int] = 1
    renamed: ClassVar[dict[str, str]] = {"intensity": "range"}
    gives: frozenset[str] = frozenset({"image", "mask"})  # an instance may give less, if its folder holds less
    licence: ClassVar[str] = ""
    url: ClassVar[str] = ""  # the page that describes the data
    title: ClassVar[str] = ""
    counts: ClassVar[dict[str, tuple[int, ...]]] = {}
    total: ClassVar[tuple[int, ...]] = ()
    archives: ClassVar[tuple[dict[str, Any], ...]] = ()
    manual_download: ClassVar[str] = ""  # a sentence, or several
    labels_in_masks: ClassVar[bool] = False
    layout_description: ClassVar[str] = ""
    official_metrics: ClassVar[tuple[str, ...]] = ()
    category_groups: ClassVar[dict[str, tuple[str, ...]]] = {}  # names for several categories, such as "textures"
    focal_length: float = 0.0  # of the camera that measured depth, in widths of the image; 0: not known
    intensity: IntensityRange | None = None  # of deep images: declared, or learnt by iadbe.data.intensity
    channels: tuple[int, ...] | str = ()  # of multi-channel images, as :meth:`configure` takes them
    region_files: RegionFiles | None = None  # which pixels count: see set_region
    filled: bool = False  # whether pixels that do not count have been given another colour already
    root: Path

    def __init__(self, root: str = "") -> None:
        """Set the folder.

        Args:
            root: folder of the data
        """
        if not root:
            raise BadConfig(
                f"{type(self).__name__} needs the folder of the data, and ./datasets has none. Give --data.root DIR."
            )
        self.root = system.user_path(root).absolute()
        if not self.root.is_dir():
            raise BadData(f"there is no folder {self.root}. Give the folder of the data with --data.root DIR.")

    @classmethod
    def create(cls, params: Mapping[str, Any]) -> Dataset:
        """Return a dataset of this class from all of its parameters, those of :meth:`configure` among them."""
        shared = inspect.signature(Dataset.configure).parameters
        made = cls(**{name: value for name, value in params.items() if name not in shared})
        made.configure(**{name: value for name, value in params.items() if name in shared})
        return made

    def configure(
        self,
        range: tuple[float, ...] = (),
        channels: tuple[int, ...] | str = (),
        roi: str = "",
        ignore: str = "",
    ) -> None:
        """Set what every dataset can be told about its images.

        Args:
            range: black and white of 16-bit or floating-point images, such as 0,4095; by default learnt
            channels: of multi-channel images, one or three, counted from 0; or mean, or pca, learnt from normal images
            roi: pixels that count: a mask, a folder of masks by name, or shapes (LabelMe, COCO, CVAT, polygons in YAML)
            ignore: pixels that do not count, given likewise
        """
        self.intensity = bands.declared_range(range) or self.intensity
        self.channels = bands.declared_channels(channels) or self.channels
        bands.check_together(range, self.channels)
        self.set_region(roi, ignore)

    def set_region(self, roi: str = "", ignore: str = "") -> None:
        """Say which pixels of the images count (see :mod:`iadbe.files.region_files`). Reads the index.

        Raises :class:`BadData` for a file that cannot be used.
        """
        images = {s.image: s.category for s in self.samples()} if roi or ignore else {}
        self.region_files = RegionFiles(self.root, images, roi, ignore) if roi or ignore else None

    @property
    @abstractmethod
    def categories(self) -> tuple[str, ...]:
        """The names of the categories that are present, sorted."""

    def chosen_categories(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the present categories that names of categories or groups mean; all of them for none, or for "all".

        Raises :class:`UnknownName` for a name that is neither.
        """
        found: dict[str, None] = {}
        for name in names or ("all",):
            group = self.categories if name == "all" else self.category_groups.get(name, ())
            present = (name,) if name in self.categories else tuple(c for c in group if c in self.categories)
            if not present:
                if name in self.category_groups:
                    raise UnknownName(
                        f"none of the {name} is here ({', '.join(group)}). There are: {', '.join(self.categories)}."
                    )
                known = [*self.categories, *self.category_groups]
                groups = f" Groups: all, {', '.join(self.category_groups)}." if self.category_groups else ""
                raise UnknownName(
                    f"there is no category {name!r} here.{did_you_mean(name, known)} There are: "
                    f"{', '.join(self.categories)}.{groups}"
                )
            found.update(dict.fromkeys(present))
        return tuple(found)

    @abstractmethod
    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, in the same order on every machine. Reads names, never pixels."""

    def image(self, sample: Sample) -> np.ndarray:
        """Return an image as (H, W, 3) uint8 RGB. Raises :class:`BadData` naming the file."""
        return image_io.read_rgb(self.root / sample.image, self.intensity)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool, True at defects; None where there is none."""
        return None if sample.mask is None else mask_io.read_mask(self.root / sample.mask)

    def region(self, sample: Sample) -> np.ndarray | None:
        """Return which pixels of an image count, (H, W) bool at its own size, True: counts; None: all of them.

        What does not count takes no part in learning, scores and metrics; heat maps show it greyed. It reaches
        detectors as ``Batch.region``, in the view.
        """
        return None if self.region_files is None else self.region_files.of(sample.image, self.image_size(sample))

    def common_region(self, sample: Sample) -> np.ndarray | None:
        """Return the region of all images of a sample's category, (H, W) bool at the size of ``sample``.

        None where there is none, or where images have regions of their own.
        """
        return self.region(sample) if self.region_files is not None and self.region_files.is_common else None

    def region_digest(self, samples: Sequence[Sample]) -> str:
        """Return a digest of the content of the regions of some images; "" where there are none."""
        return "" if self.region_files is None else self.region_files.digest(s.image for s in samples)

    def image_size(self, sample: Sample) -> tuple[int, int]:
        """Return (height, width) of an image, from its file's header where it has a file of its own."""
        path = self.root / sample.image
        if path.is_file() and image_io.is_image(path):
            return image_io.size(path)
        height, width = self.image(sample).shape[:2]
        return height, width

    def defects(self, sample: Sample) -> tuple[Defect, ...]:
        """Return the defects of an image one by one; an empty tuple where there is no mask.

        They are the 8-connected components of the mask, unless a dataset defines them. Their union is the mask. They
        may overlap.
        """
        mask = self.mask(sample)
        if mask is None:
            return ()
        from scipy import ndimage

        components, count = ndimage.label(mask, np.ones((3, 3)))
        return tuple(Defect(components == number) for number in range(1, count + 1))

    def depth(self, sample: Sample) -> np.ndarray | None:
        """Return the depth as (H, W) float32 in the dataset's unit, nan where nothing was measured; None: no depth.

        Raises :class:`BadData` naming the file.
        """
        return None if sample.depth is None else depth.read(self.root / sample.depth)

    def points(self, sample: Sample) -> np.ndarray | None:
        """Return x, y and z of every pixel as (H, W, 3) float32, nan where nothing was measured; None: not known.

        z is the depth, x points to the right and y down, all in the unit of the depth. Where the data hold only depth,
        x and y follow from the pinhole camera with ``focal_length``. Raises :class:`BadData` naming the file.
        """
        z = self.depth(sample) if self.focal_length else None
        return None if z is None else depth.back_projected(z, self.focal_length)

    def digest(self, categories: Collection[str] = ()) -> str:
        """Return 16 hex digits of the index of some categories, by default all. It is part of a run's identity.

        It covers names, splits, labels and file sizes, and the content of regions (:meth:`region_digest`). It is the
        same whether ``root`` is the folder of all categories or of one category.
        """
        sha = hashlib.sha256()
        mine = sorted(self.samples(), key=lambda s: (s.category, s.id))
        mine = [s for s in mine if not categories or s.category in categories]
        for s in mine:
            mask = (s.mask or "").rpartition("/")[2]
            sizes = [_size(self.root / path) for path in (s.image, s.mask, s.depth) if path]
            sha.update(f"{s.id}|{s.category}|{s.split}|{s.defect}|{mask}|{sizes}\n".encode())
        sha.update(self.region_digest(mine).encode())
        return sha.hexdigest()[:16]

    def whole_digest(self) -> str:
        """Return the digest of version 0.1: of all categories together, and of paths below ``root``."""
        sha = hashlib.sha256()
        for s in self.samples():
            sizes = [_size(self.root / path) for path in (s.image, s.mask, s.depth) if path]
            sha.update(f"{s.id}|{s.category}|{s.split}|{s.defect}|{s.mask}|{sizes}\n".encode())
        sha.update(self.region_digest(self.samples()).encode())
        return sha.hexdigest()[:16]


def evenly_spaced(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Return up to ``count`` samples, evenly spaced from the first to the last."""
    if not samples:
        return []
    return [samples[int(i)] for i in np.unique(np.linspace(0, len(samples) - 1, count).round())]


def _size(path: Path) -> int:
    """Return a file's bytes; of a folder of masks, of all its files; of a page, of the whole file."""
    path = pages.file_of(path)
    if path.is_dir():
        return sum(p.stat().st_size for p in path.iterdir() if p.is_file())
    return path.stat().st_size if path.is_file() else 0


class Index:
    """The samples of a dataset by category and split, for settings."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = tuple(samples)
        self.categories = tuple(sorted({s.category for s in self.samples}))

    def train(self, category: str) -> tuple[Sample, ...]:
        """Return the normal training images of a category."""
        return tuple(s for s in self._split(category, "train") if not s.is_anomaly)

    def val(self, category: str) -> tuple[Sample, ...]:
        """Return the normal validation images of the dataset's own split, often none."""
        return tuple(s for s in self._split(category, "val") if not s.is_anomaly)

    def test(self, category: str) -> tuple[Sample, ...]:
        """Return the test images of a category, normal and defective."""
        return self._split(category, "test")

    def anomalies(self, category: str) -> tuple[Sample, ...]:
        """Return the defective test images of a category."""
        return tuple(s for s in self.test(category) if s.is_anomaly)

    def _split(self, category: str, split: str) -> tuple[Sample, ...]:
        if category not in self.categories:
            hint = did_you_mean(category, self.categories)
            raise BadConfig(f"there is no category {category!r}.{hint} There are: {', '.join(self.categories)}.")
        return tuple(s for s in self.samples if s.category == category and s.split == split)
