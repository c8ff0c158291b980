"""Magnetic Tile Defects in its original layout, ``MT_KIND/Imgs/NAME.jpg`` with mask ``NAME.png``, split by tile.

Paper: Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual Computer 2018.
Differs:
    * There is no official split. Others train on a random 80 % of the normal images. But each spot of a tile was imaged
      under six lights in a row, so near-copies of training images are then tested. Here all images of a tile are in one
      split.
    * The tile follows from the names ``exp{light}_num_{number}``: numbers follow the camera, and a new tile begins
      where the number jumps by more than 200 after all six lights were seen.
    * Normal images of a tile that also shows a defect are tested, never trained on.
    * The label comes from the folder, because four masks of ``MT_Uneven`` are empty.
    * Masks have soft edges. Above 127 is defect.
Numbers: 952 normal and 392 defective images of 192 tiles, of which 127 (832 images) show no defect. A random 80 % of
    the normal images leaves 91 to 97 of the 190 normal test images with a near-copy in training (about the same size,
    32x32 thumbnails correlate above 0.99; 3 seeds). The split by tile leaves 0 or 1 of 192 (4 seeds).
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import layout, mask_io
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

CATEGORY = "magnetic_tile"
KINDS = {"MT_Blowhole": "blowhole", "MT_Break": "break", "MT_Crack": "crack", "MT_Fray": "fray", "MT_Uneven": "uneven"}
LIGHTS = frozenset(range(1, 7))  # three images have light 0
MIN_JUMP = 200  # between the numbers of two tiles
_NAME = re.compile(r"exp(\d+)_num_(\d+)")


class MTD(Dataset):
    """One category, five kinds of defects, seeded split by tile."""

    title: ClassVar[str] = "Magnetic Tile Defects"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = 'Huang et al., "Surface defect saliency of magnetic tile", The Visual Computer 2018'
    licence: ClassVar[str] = "none stated; use is welcomed, cite the paper"
    url: ClassVar[str] = "https://github.com/abin24/Magnetic-tile-defect-datasets."
    layout_description: ClassVar[str] = "MT_Free/Imgs (Magnetic Tile Defects)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/HEAD.zip",
            "file": "magnetic_tile.zip",
        },
    )
    counts: ClassVar[dict[str, tuple[int, ...]]] = {"magnetic_tile": (952, 392)}  # normal, defective: no official split

    renamed_values = {"split": {"picture": "image"}}

    def __init__(
        self, root: str = "", train_share: float = 0.8, seed: int = 0, split: Literal["tile", "image"] = "tile"
    ) -> None:
        """Index a folder.

        Args:
            root: folder with MT_Free and MT_Blowhole, MT_Break, MT_Crack, MT_Fray, MT_Uneven
            train_share: share of the normal images to train on
            seed: of the random split
            split: by tile, or by image; by image, half of the normal test images have a near-copy in training
        """
        super().__init__(root)
        self.train_share = layout.check_share("mtd.train_share", train_share)
        if split not in ("tile", "image"):
            raise BadConfig(f"mtd.split is tile or image, not {split!r}.")
        self.seed, self.split = seed, split
        if not self._names("MT_Free"):
            found = ", ".join(layout.subfolders(self.root)[:8]) or "no folders"
            raise BadData(f"{self.root} does not hold MT_Free/Imgs/*.jpg, but {found}. Give the folder of MT_Free.")

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        there = [kind for kind in ("MT_Free", *KINDS) if (folder / kind / "Imgs").is_dir()]
        return LayoutMatch(f"Magnetic Tile Defects ({len(there)} folders)") if "MT_Free" in there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category, magnetic_tile."""
        return (CATEGORY,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index: normal images by name, then the kinds of defects."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool."""
        return None if sample.mask is None else mask_io.read_mask(self.root / sample.mask, above=127)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        train = self._train()
        found: list[Sample] = []
        names = [f"{folder}/Imgs/{name}" for folder in ("MT_Free", *KINDS) for name in self._names(folder)]
        names = [path for path in names if _NAME.fullmatch(Path(path).stem)]  # others are groups of their own
        tile_of = {path: group[0] for group in tiles(names) for path in group}
        for folder, defect in {"MT_Free": "good", **KINDS}.items():
            masks = {Path(n).stem for n in layout.images(self.root / folder / "Imgs", (".png",))}
            for name in self._names(folder):
                path, stem = f"{folder}/Imgs/{name}", Path(name).stem
                mask = f"{folder}/Imgs/{stem}.png" if defect != "good" and stem in masks else None
                split = "train" if defect == "good" and path in train else "test"
                id_ = f"{CATEGORY}/{folder}/{name}"
                found.append(Sample(id_, CATEGORY, split, defect, path, mask, group=tile_of.get(path, "")))
        return tuple(found)

    def _train(self) -> set[str]:
        good = [f"MT_Free/Imgs/{name}" for name in self._names("MT_Free")]
        if self.split == "image":
            return layout.draw_groups([[path] for path in good], round(self.train_share * len(good)), self.seed)
        bad = [f"{folder}/Imgs/{name}" for folder in KINDS for name in self._names(folder)]
        defect_free = [group for group in tiles([*good, *bad]) if all(path.startswith("MT_Free/") for path in group)]
        wanted, most = round(self.train_share * len(good)), sum(map(len, defect_free))
        if wanted > most:
            raise BadConfig(
                f"mtd.train_share is {self.train_share}, but only {most} of the {len(good)} good images are of "
                f"tiles without any defect: at most {int(100 * most / len(good)) / 100}."
            )
        return layout.draw_groups(defect_free, wanted, self.seed)

    def _names(self, folder: str) -> tuple[str, ...]:
        return layout.images(self.root / folder / "Imgs", (".jpg", ".jpeg"))


def tiles(paths: list[str]) -> list[list[str]]:
    """Group paths by tile, from the lights and numbers in their names."""
    shots = []
    for path in paths:
        if (match := _NAME.fullmatch(Path(path).stem)) is None:
            raise BadData(f"{path} is not named exp1_num_123.jpg, so its tile is not known.")
        shots.append((int(match[2]), int(match[1]), path))
    groups: list[list[str]] = []
    lights: set[int] = set()
    last = 0
    for number, light, path in sorted(shots):
        if not groups or (number - last > MIN_JUMP and lights >= LIGHTS):
            groups.append([])
            lights = set()
        groups[-1].append(path)
        lights.add(light)
        last = number
    return groups
