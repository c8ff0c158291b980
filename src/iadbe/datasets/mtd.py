"""Magnetic Tile Defects in its original layout, ``MT_KIND/Imgs/NAME.jpg`` with the mask ``NAME.png``, and a fair split.

Paper: Huang, Qiu, Yuan, "Surface defect saliency of magnetic tile", The Visual Computer 2018.
Differs: there is no official split. Others train on a random 80 % of the good images, but each spot of a tile was
    photographed under six lights in a row, so nearly the same image then stands on both sides. Here the images of
    one tile stay together: names are ``exp{light}_num_{number}``, the numbers follow the camera, and a new tile begins
    where the number jumps by more than 200 once all six lights were seen. Good images of a tile that also shows a
    defect are tested, never trained on.
    The label comes from the folder: four masks of ``MT_Uneven`` are empty. Masks have soft edges: above 127 is defect.
Numbers: 952 good images, 392 defective ones, 192 tiles, of which 127 (832 images) show no defect. A random 80 % of
    the good images leaves 91 to 97 of the 190 good test images with a near copy in training (about the same size,
    32x32 thumbnails correlate above 0.99; 3 seeds); the split by tile leaves 0 or 1 of 192 (4 seeds).
"""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io, layout
from iadbe.files.layout import Recognised
from iadbe.types import Sample

CATEGORY = "magnetic_tile"
KINDS = {"MT_Blowhole": "blowhole", "MT_Break": "break", "MT_Crack": "crack", "MT_Fray": "fray", "MT_Uneven": "uneven"}
LIGHTS = frozenset(range(1, 7))  # three images are of a light 0
JUMP = 200
_NAME = re.compile(r"exp(\d+)_num_(\d+)")


class MTD(Dataset):
    """One category, five kinds of defects, a seeded split by tile."""

    title: ClassVar[str] = "Magnetic Tile Defects"
    year: ClassVar[int] = 2018
    paper: ClassVar[str] = 'Huang et al., "Surface defect saliency of magnetic tile", The Visual Computer 2018'
    licence: ClassVar[str] = "none stated; use is welcomed, cite the paper"
    url: ClassVar[str] = "https://github.com/abin24/Magnetic-tile-defect-datasets."
    looks_like: ClassVar[str] = "MT_Free/Imgs (Magnetic Tile Defects)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://github.com/abin24/Magnetic-tile-defect-datasets./archive/HEAD.zip",
            "file": "magnetic_tile.zip",
        },
    )
    counts: ClassVar[dict[str, tuple[int, ...]]] = {"magnetic_tile": (952, 392)}  # good, defective: no official split

    renamed_values = {"split": {"picture": "image"}}

    def __init__(
        self, root: str = "", train_share: float = 0.8, seed: int = 0, split: Literal["tile", "image"] = "tile"
    ) -> None:
        """Look at a folder.

        Args:
            root: the folder that holds MT_Free and MT_Blowhole, MT_Break, MT_Crack, MT_Fray, MT_Uneven
            train_share: the share of the good images to train on
            seed: decides which tiles these are
            split: draw whole tiles, or any images, of which half then have a near copy on the other side
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
    def recognise(cls, folder: Path) -> Recognised | None:
        """Say whether a folder has this layout."""
        there = [kind for kind in ("MT_Free", *KINDS) if (folder / kind / "Imgs").is_dir()]
        return Recognised(f"Magnetic Tile Defects ({len(there)} folders)") if "MT_Free" in there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """Magnetic tiles, and nothing else."""
        return (CATEGORY,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index: good images by name, then the kinds of defects."""
        return self._samples

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool."""
        return None if sample.mask is None else image_io.read_mask(self.root / sample.mask, above=127)

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        train = self._train()
        found: list[Sample] = []
        for folder, defect in {"MT_Free": "good", **KINDS}.items():
            masks = {Path(n).stem for n in layout.images(self.root / folder / "Imgs", (".png",))}
            for name in self._names(folder):
                path, stem = f"{folder}/Imgs/{name}", Path(name).stem
                mask = f"{folder}/Imgs/{stem}.png" if defect != "good" and stem in masks else None
                split = "train" if defect == "good" and path in train else "test"
                found.append(Sample(f"{CATEGORY}/{folder}/{name}", CATEGORY, split, defect, path, mask))
        return tuple(found)

    def _train(self) -> set[str]:
        good = [f"MT_Free/Imgs/{name}" for name in self._names("MT_Free")]
        if self.split == "image":
            return layout.draw([[path] for path in good], round(self.train_share * len(good)), self.seed)
        bad = [f"{folder}/Imgs/{name}" for folder in KINDS for name in self._names(folder)]
        pure = [group for group in tiles([*good, *bad]) if all(path.startswith("MT_Free/") for path in group)]
        wanted, most = round(self.train_share * len(good)), sum(map(len, pure))
        if wanted > most:
            raise BadConfig(
                f"mtd.train_share is {self.train_share}, but only {most} of the {len(good)} good images are of "
                f"tiles without any defect: at most {int(100 * most / len(good)) / 100}."
            )
        return layout.draw(pure, wanted, self.seed)

    def _names(self, folder: str) -> tuple[str, ...]:
        return layout.images(self.root / folder / "Imgs", (".jpg", ".jpeg"))


def tiles(paths: list[str]) -> list[list[str]]:
    """Group paths by the tile that they show, which the lights and numbers in their names tell."""
    shots = []
    for path in paths:
        if (match := _NAME.fullmatch(Path(path).stem)) is None:
            raise BadData(f"{path} is not named exp1_num_123.jpg, so it is not known which tile it shows.")
        shots.append((int(match[2]), int(match[1]), path))
    groups: list[list[str]] = []
    lights: set[int] = set()
    last = 0
    for number, light, path in sorted(shots):
        if not groups or (number - last > JUMP and lights >= LIGHTS):
            groups.append([])
            lights = set()
        groups[-1].append(path)
        lights.add(light)
        last = number
    return groups
