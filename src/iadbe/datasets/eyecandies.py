"""Eyecandies: ten candies rendered under six lights, with exact depth and masks.

Paper: Bonfiglioli et al., "The Eyecandies dataset for unsupervised multimodal anomaly detection and localization",
    ACCV 2022.
Differs:
    * One of the six lights is read, the one that ``light`` names.
    * ``test_private`` is left out, because its labels are not published.
    * Depth is in metres: the 16-bit image is scaled to the bounds in ``NNN_info_depth.yaml``. Normals are not read.
    * The camera has the focal length of the authors' conversion to point clouds, 711.11 pixels of 512. They also rotate
      the points into the scene, by poses that are not read here.
    * Only the masks show which test images are normal, so they are read once.
    * The kinds of defects (bumps, colors, dents, normals) are united.
Numbers: each candy has 1000 training images, 100 normal validation images, 25 normal and 25 defective test images.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import layout
from iadbe.files.layout import LayoutMatch
from iadbe.files.nonempty_masks import nonempty_masks
from iadbe.types import Sample

SPLITS = {"train": "train", "val": "val", "test_public": "test"}
LIGHTS = 6
_IMAGE = re.compile(r"(\d+)_image_(\d)\.png")


class Eyecandies(Dataset):
    """One folder per candy; ``root`` may also be the folder of a single candy."""

    title: ClassVar[str] = "Eyecandies"
    year: ClassVar[int] = 2022
    paper: ClassVar[str] = 'Bonfiglioli et al., "The Eyecandies dataset", ACCV 2022'
    gives: frozenset[str] = frozenset({"image", "mask", "depth"})
    licence: ClassVar[str] = "not known; see its page"
    url: ClassVar[str] = "https://eyecan-ai.github.io/eyecandies"
    focal_length: float = 711.11 / 512
    layout_description: ClassVar[str] = "CATEGORY/train/data/000_image_0.png with CATEGORY/test_public (Eyecandies)"
    labels_in_masks: ClassVar[bool] = True
    manual_download: ClassVar[str] = (
        "Fetch the candies one by one from https://eyecan-ai.github.io/eyecandies/download and unpack them so that the "
        "folder holds CandyCane/train/data and so on."
    )
    total: ClassVar[tuple[int, ...]] = (10000, 1250, 250)

    def __init__(self, root: str = "", light: int = 5) -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
            light: 0 all spotlights, 1 bottom, 2 right, 3 top, 4 left, 5 spotlights and the camera's light
        """
        super().__init__(root)
        if light not in range(LIGHTS):
            raise BadConfig(f"eyecandies.light is {light}, but the lights are numbered 0 to {LIGHTS - 1}.")
        self.light = light
        self._folders = _candies(self.root)
        if not self._folders:
            raise BadData(
                f"{self.root} does not hold CATEGORY/train/data/*_image_0.png and CATEGORY/test_public, but "
                f"{layout.contents(self.root)}. Give the folder that holds the categories."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        found = _candies(folder)
        return LayoutMatch(f"Eyecandies ({len(found)} candies)") if found else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The candies that are present."""
        return tuple(sorted(self._folders))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, candy by candy: train, val, test."""
        return self._samples

    def depth(self, sample: Sample) -> np.ndarray | None:
        """Return the depth as (H, W) float32 in metres."""
        levels = super().depth(sample)
        if levels is None or sample.depth is None:
            return None
        file = self.root / sample.depth.replace("_depth.png", "_info_depth.yaml")
        try:
            bounds = layout.read_yaml(file)["normalization"]
            low, high = float(bounds["min"]), float(bounds["max"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadData(f"{file} lacks the bounds of the depth, normalization: min and max.") from error
        return (levels / 65535 * (high - low) + low).astype(np.float32)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        places = [
            (c, f"{self._folders[c]}{part}/data", split) for c in self.categories for part, split in SPLITS.items()
        ]
        defective = self._defective([folder for _, folder, split in places if split == "test"])
        found = []
        for category, folder, split in places:
            there = set(layout.images(self.root / folder))
            for number in self._numbers(folder):
                path, depth = f"{folder}/{number}_image_{self.light}.png", f"{number}_depth.png"
                bad = (mask := f"{folder}/{number}_mask.png") in defective
                found.append(
                    Sample(
                        f"{category}/{split}/{number}",
                        category,
                        split,
                        "defect" if bad else "good",
                        path,
                        mask if bad else None,
                        f"{folder}/{depth}" if depth in there else None,
                    )
                )
        return tuple(found)

    def _numbers(self, folder: str) -> list[str]:
        shots = [_IMAGE.fullmatch(name) for name in layout.images(self.root / folder)]
        return [shot[1] for shot in shots if shot and int(shot[2]) == self.light]

    def _defective(self, folders: list[str]) -> frozenset[str]:
        masks = []
        for folder in folders:
            there = set(layout.images(self.root / folder))
            for number in self._numbers(folder):
                if f"{number}_mask.png" not in there:
                    raise BadData(
                        f"{self.root / folder}/{number}_mask.png is missing, so the label of its image is not known."
                    )
                masks.append(f"{folder}/{number}_mask.png")
        return nonempty_masks(self.root, masks)


def _candies(root: Path) -> dict[str, str]:
    """Return candy -> its folder relative to ``root``, "" or with a slash at its end."""
    if _is_candy(root):
        return {Path(os.path.abspath(root)).name: ""}
    return {name: f"{name}/" for name in layout.subfolders(root) if _is_candy(root / name)}


def _is_candy(folder: Path) -> bool:
    named = [_IMAGE.fullmatch(name) for name in layout.images(folder / "train/data")]
    return any(named) and (folder / "test_public/data").is_dir()
