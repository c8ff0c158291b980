"""KolektorSDD2: colour images of surfaces from a production line, ``train/10000.png`` with ``train/10000_GT.png``.

Paper: Bozic, Tabernik, Skocaj, "Mixed supervision for surface-defect detection: from weakly to fully supervised
    learning", Computers in Industry 129, 2021.
Differs:
    * The dataset is meant for supervised training. Its 246 defective training images are left out; otherwise the
      official split is kept.
    * Only the masks show which images are normal, so they are read once.
Numbers: 2085 normal training images, 894 normal and 110 defective test images.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout
from iadbe.files.layout import LayoutMatch
from iadbe.files.nonempty_masks import nonempty_masks
from iadbe.types import Sample

CATEGORY = "surface"


class KolektorSDD2(Dataset):
    """One category, one kind of defect."""

    title: ClassVar[str] = "KolektorSDD2"
    year: ClassVar[int] = 2021
    paper: ClassVar[str] = 'Bozic et al., "Mixed supervision for surface-defect detection", Computers in Industry 2021'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.vicos.si/resources/kolektorsdd2"
    layout_description: ClassVar[str] = "train/10000.png with train/10000_GT.png (KolektorSDD2)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {"url": "https://go.vicos.si/kolektorsdd2", "file": "KolektorSDD2.zip"},
    )
    counts: ClassVar[dict[str, tuple[int, ...]]] = {"surface": (2085, 894, 110)}
    labels_in_masks: ClassVar[bool] = True

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with train and test
        """
        super().__init__(root)
        if not (_pairs(self.root, "train") and _pairs(self.root, "test")):
            raise BadData(
                f"{self.root} does not hold train/10000.png with train/10000_GT.png and test likewise, but "
                f"{layout.contents(self.root)}. Give the folder that holds train and test."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        found = [_pairs(folder, split) for split in ("train", "test")]
        return LayoutMatch(f"KolektorSDD2 ({sum(map(len, found))} images)") if all(found) else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The one category, surface."""
        return (CATEGORY,)

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index: train, then test, by name."""
        return self._samples

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        pairs = {split: _pairs(self.root, split) for split in ("train", "test")}
        defective = nonempty_masks(self.root, [mask for found in pairs.values() for _, mask in found])
        found = []
        for split in ("train", "test"):
            for path, mask in pairs[split]:
                bad = mask in defective
                if split == "test" or not bad:
                    kind = "defect" if bad else "good"
                    found.append(Sample(f"{CATEGORY}/{path}", CATEGORY, split, kind, path, mask if bad else None))
        return tuple(found)


def _pairs(root: Path, split: str) -> list[tuple[str, str]]:
    """Return (image, mask) of the images of a split that have a mask ``NAME_GT``."""
    names = layout.images(root / split)
    masks = {Path(n).stem.removesuffix("_GT"): n for n in names if Path(n).stem.endswith("_GT")}
    stems = [(Path(n).stem, n) for n in names if not Path(n).stem.endswith("_GT")]
    return [(f"{split}/{name}", f"{split}/{masks[stem]}") for stem, name in stems if stem in masks]
