"""The layout that MVTec AD began and others share: ``CATEGORY/train/good``, ``CATEGORY/test/KIND``, ``ground_truth``.

A dataset in this layout is a subclass that names its folders where they differ. A mask is found by its image's stem
(``000_mask.png``, also ``000.png``, or a folder ``000`` whose images are united), never by its position in a list. A
defect whose mask is not there has none. ``validation/good``, where there is one, becomes the split "val".
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import image_io, layout
from iadbe.files.layout import Recognised
from iadbe.types import Sample


class MVTecLayout(Dataset):
    """One folder per category; ``root`` may also be the folder of a single category."""

    known: ClassVar[tuple[str, ...]] = ()  # its categories, where they are not the keys of ``counts``
    named_only: ClassVar[bool] = True  # it has this layout like others, and is recognised by its categories' names
    good: ClassVar[str] = "good"  # the folders of images without defects
    test: ClassVar[str] = "test"
    ground_truth: ClassVar[str] = "ground_truth"
    inside: ClassVar[str] = ""  # the folder below the kind's that holds the images, with a slash before it

    def __init__(self, root: str = "") -> None:
        super().__init__(root)
        self._folders = self._categories(self.root)
        if not self._folders:
            raise BadData(
                f"{self.root} is not in the layout of {self.title}: looked for CATEGORY/train/{self.good}{self.inside}"
                f"/*.png and CATEGORY/{self.test}/KIND{self.inside}/*.png, found {layout.found_in(self.root)}. "
                "Give the folder that holds the categories."
            )

    @classmethod
    def recognise(cls, folder: Path) -> Recognised | None:
        """Say whether a folder has this layout, and the names of this dataset where others have it too."""
        found = sorted(cls._categories(folder))
        named = cls._is_named(folder, found)
        if not found or (cls.named_only and not named):
            return None
        count = f"category {found[0]}" if len(found) == 1 else f"{len(found)} categories"
        return Recognised(f"the {cls.title} layout ({count})", named=named)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the folders that hold images to train on and to test."""
        return tuple(sorted(self._folders))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, category by category: train, val, test."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool, the union where it is kept as several images."""
        folder = self.root / (sample.mask or "")
        if sample.mask is None or not folder.is_dir():
            return super().mask(sample)
        parts = [image_io.read_mask(folder / name) for name in layout.images(folder)]
        if len({p.shape for p in parts}) != 1:
            raise BadData(f"the masks in {folder} are not all of one size, or there are none.")
        return np.logical_or.reduce(parts)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        return tuple(self._index())

    def _index(self) -> list[Sample]:
        found: list[Sample] = []
        for category in self.categories:
            where = self._folders[category]
            for split, folder in (("train", f"train/{self.good}"), ("val", f"validation/{self.good}")):
                found += self._read(category, where, split, folder, self.good)
            for kind in layout.subfolders(self.root / where / self.test):
                if f"{self.test}/{kind}" != self.ground_truth:
                    found += self._read(category, where, "test", f"{self.test}/{kind}", kind)
        return found

    def _read(self, category: str, where: str, split: str, folder: str, kind: str) -> list[Sample]:
        masks = {} if kind == self.good else self._masks(where, kind)
        depths = self._depths(f"{where}{folder}")
        defect = "good" if kind == self.good else kind
        found = []
        for name in layout.images(self.root / f"{where}{folder}{self.inside}"):
            path, stem = f"{folder}{self.inside}/{name}", Path(name).stem
            found.append(
                Sample(
                    f"{category}/{path}", category, split, defect, f"{where}{path}", masks.get(stem), depths.get(stem)
                )
            )
        return found

    def _masks(self, where: str, kind: str) -> dict[str, str]:
        """Return image stem -> path of its mask: a file, or a folder of masks."""
        folder = f"{where}{self.ground_truth}/{kind}"
        several = {name: f"{folder}/{name}" for name in layout.subfolders(self.root / folder)}
        return several | {stem: f"{folder}/{name}" for stem, name in layout.masks(self.root / folder).items()}

    def _depths(self, folder: str) -> dict[str, str]:
        """Return image stem -> path of its depth, for the images of a folder."""
        return {}

    @classmethod
    def _is_named(cls, folder: Path, categories: list[str]) -> bool:
        return bool(categories) and set(categories) <= set(cls.known or cls.counts)

    @classmethod
    def _categories(cls, root: Path) -> dict[str, str]:
        """Return category -> its folder relative to ``root``, "" or with a slash at its end."""
        if cls._is_category(root):
            return {Path(os.path.abspath(root)).name: ""}
        return {name: f"{name}/" for name in layout.subfolders(root) if cls._is_category(root / name)}

    @classmethod
    def _is_category(cls, folder: Path) -> bool:
        kinds = layout.subfolders(folder / cls.test)
        tested = any(layout.images(folder / f"{cls.test}/{kind}{cls.inside}") for kind in kinds)
        return tested and bool(layout.images(folder / f"train/{cls.good}{cls.inside}"))
