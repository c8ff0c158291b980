"""MVTec AD, and any dataset in its layout: ``CATEGORY/train/good``, ``CATEGORY/test/KIND``, ``CATEGORY/ground_truth``.

Paper: Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", CVPR 2019.
Differs: nothing. A mask is found by its picture's stem (``000_mask.png``, also ``000.png`` or a folder ``000`` whose
    pictures are united, as MVTec LOCO AD and AutoVI keep them), never by its position in a list. A defect whose mask
    is not there has none. ``validation/good``, where there is one, becomes the split "val".
Numbers: 15 categories, 3629 pictures to train on, 467 good and 1258 defective ones to test.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe import layout, picture
from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.layout import Recognised
from iadbe.types import Sample


class MVTecAD(Dataset):
    """One folder per category; ``root`` may also be the folder of a single category."""

    title: ClassVar[str] = "MVTec AD"
    year: ClassVar[int] = 2019
    paper: ClassVar[str] = 'Bergmann et al., "MVTec AD", CVPR 2019'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    looks_like: ClassVar[str] = "CATEGORY/train/good with CATEGORY/test (MVTec AD)"
    # category: pictures to train on, good ones to test, defective ones
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "bottle": (209, 20, 63),
        "cable": (224, 58, 92),
        "capsule": (219, 23, 109),
        "carpet": (280, 28, 89),
        "grid": (264, 21, 57),
        "hazelnut": (391, 40, 70),
        "leather": (245, 32, 92),
        "metal_nut": (220, 22, 93),
        "pill": (267, 26, 141),
        "screw": (320, 41, 119),
        "tile": (230, 33, 84),
        "toothbrush": (60, 12, 30),
        "transistor": (213, 60, 40),
        "wood": (247, 19, 60),
        "zipper": (240, 32, 119),
    }

    def __init__(self, root: str = "") -> None:
        """Look at a folder.

        Args:
            root: the folder that holds the categories, or one category's folder
        """
        super().__init__(root)
        self._folders = _categories(self.root)
        if not self._folders:
            found = ", ".join(layout.subfolders(self.root)[:8]) or "no folders"
            raise BadData(
                f"{self.root} is not in the layout of MVTec AD: looked for CATEGORY/train/good/*.png and "
                f"CATEGORY/test/KIND/*.png, found {found}. Give the folder that holds the categories."
            )

    @classmethod
    def recognise(cls, folder: Path) -> Recognised | None:
        """Say whether a folder has this layout."""
        found = sorted(_categories(folder))
        if not found:
            return None
        count = f"category {found[0]}" if len(found) == 1 else f"{len(found)} categories"
        return Recognised(f"the MVTec AD layout ({count})")

    @property
    def categories(self) -> tuple[str, ...]:
        """The names of the folders that hold ``train/good``."""
        return tuple(sorted(self._folders))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, category by category: train, val, test."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool, the union where it is kept as several pictures."""
        folder = self.root / (sample.mask or "")
        if sample.mask is None or not folder.is_dir():
            return super().mask(sample)
        parts = [picture.read_mask(folder / name) for name in layout.pictures(folder)]
        if len({p.shape for p in parts}) != 1:
            raise BadData(f"the masks in {folder} are not all of one size.")
        return np.logical_or.reduce(parts)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        found: list[Sample] = []
        for category in self.categories:
            where = self._folders[category]
            for split, folder in (("train", "train/good"), ("val", "validation/good")):
                found += self._read(category, where, split, folder, "good")
            for kind in layout.subfolders(self.root / where / "test"):
                found += self._read(category, where, "test", f"test/{kind}", kind)
        return tuple(found)

    def _read(self, category: str, where: str, split: str, folder: str, defect: str) -> list[Sample]:
        masks = _masks(self.root, f"{where}ground_truth/{defect}") if defect != "good" else {}
        return [
            Sample(f"{category}/{folder}/{n}", category, split, defect, f"{where}{folder}/{n}", masks.get(Path(n).stem))
            for n in layout.pictures(self.root / where / folder)
        ]


def _categories(root: Path) -> dict[str, str]:
    """Return category -> its folder relative to ``root``, "" or with a slash at its end."""
    if _is_category(root):
        return {Path(os.path.abspath(root)).name: ""}
    return {name: f"{name}/" for name in layout.subfolders(root) if _is_category(root / name)}


def _is_category(folder: Path) -> bool:
    kinds = layout.subfolders(folder / "test")
    return any(layout.pictures(folder / "test" / k) for k in kinds) and bool(layout.pictures(folder / "train/good"))


def _masks(root: Path, folder: str) -> dict[str, str]:
    """Return picture stem -> path of its mask: a file, or a folder of masks."""
    several = {name: f"{folder}/{name}" for name in layout.subfolders(root / folder)}
    return several | {stem: f"{folder}/{name}" for stem, name in layout.masks(root / folder).items()}
