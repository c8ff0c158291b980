"""The layout of MVTec AD, which others share: ``CATEGORY/train/good``, ``CATEGORY/test/KIND``, ``ground_truth``.

A dataset in this layout is a subclass. It names the folders that differ.

* A mask is found by its image's stem (``000_mask.png``, ``000.png``, or a folder ``000`` whose images are united),
  never by its position in a list.
* A defect without a mask file has no mask.
* ``validation/good``, where there is one, becomes the split "val".
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout, mask_io
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample


class MVTecLayout(Dataset):
    """One folder per category; ``root`` may also be the folder of a single category."""

    category_names: ClassVar[tuple[str, ...]] = ()  # published categories, where ``counts`` does not list them
    recognised_by_names: ClassVar[bool] = True  # the layout is not its own: only its categories' names identify it
    good_folder: ClassVar[str] = "good"  # name of the folders of normal images
    test_folder: ClassVar[str] = "test"
    mask_folder: ClassVar[str] = "ground_truth"
    image_subfolder: ClassVar[str] = ""  # below the folder of a kind, with a leading slash

    def __init__(self, root: str = "") -> None:
        super().__init__(root)
        self._folders = self._categories(self.root)
        if not self._folders:
            raise BadData(
                f"{self.root} is not in the layout of {self.title}: looked for CATEGORY/train/{self.good_folder}"
                f"{self.image_subfolder}/*.png and CATEGORY/{self.test_folder}/KIND{self.image_subfolder}/*.png, found "
                f"{layout.contents(self.root)}. Give the folder that holds the categories."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder by its layout, or by its categories' names where other datasets share the layout."""
        found = sorted(cls._categories(folder))
        by_names = cls._has_own_names(folder, found)
        if not found or (cls.recognised_by_names and not by_names):
            return None
        count = f"category {found[0]}" if len(found) == 1 else f"{len(found)} categories"
        return LayoutMatch(f"the {cls.title} layout ({count})", by_names=by_names)

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the folders with training and test images, sorted."""
        return tuple(sorted(self._folders))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, category by category: train, val, test."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool, the union where it is stored as several images."""
        folder = self.root / (sample.mask or "")
        if sample.mask is None or not folder.is_dir():
            return super().mask(sample)
        parts = [mask_io.read_mask(folder / name) for name in layout.images(folder)]
        if len({p.shape for p in parts}) != 1:
            raise BadData(f"the masks in {folder} are not all of one size, or there are none.")
        return np.logical_or.reduce(parts)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        return tuple(self._index())

    def _index(self) -> list[Sample]:
        found: list[Sample] = []
        for category in self.categories:
            prefix = self._folders[category]
            for split, folder in (("train", f"train/{self.good_folder}"), ("val", f"validation/{self.good_folder}")):
                found += self._split_samples(category, prefix, split, folder, self.good_folder)
            for kind in layout.subfolders(self.root / prefix / self.test_folder):
                if f"{self.test_folder}/{kind}" != self.mask_folder:
                    found += self._split_samples(category, prefix, "test", f"{self.test_folder}/{kind}", kind)
        return found

    def _split_samples(self, category: str, prefix: str, split: str, folder: str, kind: str) -> list[Sample]:
        masks = {} if kind == self.good_folder else self._mask_paths(prefix, kind)
        depths = self._depth_paths(f"{prefix}{folder}")
        defect = "good" if kind == self.good_folder else kind
        found = []
        for name in layout.images(self.root / f"{prefix}{folder}{self.image_subfolder}"):
            path, stem = f"{folder}{self.image_subfolder}/{name}", Path(name).stem
            found.append(
                Sample(
                    f"{category}/{path}", category, split, defect, f"{prefix}{path}", masks.get(stem), depths.get(stem)
                )
            )
        return found

    def _mask_paths(self, prefix: str, kind: str) -> dict[str, str]:
        """Return image stem -> path of its mask: a file, or a folder of masks."""
        folder = f"{prefix}{self.mask_folder}/{kind}"
        several = {name: f"{folder}/{name}" for name in layout.subfolders(self.root / folder)}
        return several | {stem: f"{folder}/{name}" for stem, name in layout.masks_by_stem(self.root / folder).items()}

    def _depth_paths(self, folder: str) -> dict[str, str]:
        """Return image stem -> path of its depth, for the images of a folder."""
        return {}

    @classmethod
    def _has_own_names(cls, folder: Path, categories: list[str]) -> bool:
        return bool(categories) and set(categories) <= set(cls.category_names or cls.counts)

    @classmethod
    def _categories(cls, root: Path) -> dict[str, str]:
        """Return category -> its folder relative to ``root``, "" or with a slash at its end."""
        if cls._is_category(root):
            return {Path(os.path.abspath(root)).name: ""}
        return {name: f"{name}/" for name in layout.subfolders(root) if cls._is_category(root / name)}

    @classmethod
    def _is_category(cls, folder: Path) -> bool:
        kinds = layout.subfolders(folder / cls.test_folder)
        tested = any(layout.images(folder / f"{cls.test_folder}/{kind}{cls.image_subfolder}") for kind in kinds)
        return tested and bool(layout.images(folder / f"train/{cls.good_folder}{cls.image_subfolder}"))
