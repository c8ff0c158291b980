"""DAGM 2007: ten synthetic grey textures, ``Class1/Train/0001.PNG``, with a mask in ``Label`` per defective image.

Paper: Wieler, Hahn, "Weakly supervised learning for industrial optical inspection", DAGM symposium 2007.
Differs:
    * The dataset is meant for supervised training. The defective images of ``Train`` are left out; otherwise the
      official split is kept.
    * An image is defective where ``Label`` holds a mask for it.
    * Masks are coarse ellipses around the defects, so pixel metrics mean little.
Numbers: 16100 images, 8050 of them to test. Defective are 150 images of each of Class1 to Class6 and 300 of each of
    Class7 to Class10, in Train and Test together.
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

_CLASS = re.compile(r"Class\d+")


class DAGM(Dataset):
    """One category per class; ``root`` may also be the folder of a single class."""

    title: ClassVar[str] = "DAGM 2007"
    year: ClassVar[int] = 2007
    paper: ClassVar[str] = 'Wieler, Hahn, "Weakly supervised learning for industrial optical inspection", 2007'
    licence: ClassVar[str] = "not known; see its page"
    url: ClassVar[str] = "https://www.kaggle.com/mhskjelvareid/dagm-2007-competition-dataset-optical-inspection"
    layout_description: ClassVar[str] = "Class1/Train with Class1/Train/Label (DAGM 2007)"
    manual_download: ClassVar[str] = (
        "Fetch it, with an account, from "
        "https://www.kaggle.com/mhskjelvareid/dagm-2007-competition-dataset-optical-inspection and unpack it so that "
        "the folder holds Class1 to Class10."
    )

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with Class1 to Class10, or one of these
        """
        super().__init__(root)
        self._folders = _classes(self.root)
        if not self._folders:
            raise BadData(
                f"{self.root} does not hold Class1/Train/*.PNG with Class1/Train/Label, but "
                f"{layout.contents(self.root)}. Give the folder of Class1."
            )

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        found = _classes(folder)
        return LayoutMatch(f"DAGM 2007 ({len(found)} classes)") if found else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The classes that are present."""
        return tuple(sorted(self._folders))

    def samples(self) -> tuple[Sample, ...]:
        """Return the whole index, class by class: train, then test."""
        return self._samples

    @cached_property
    def _samples(self) -> tuple[Sample, ...]:
        found = []
        for category in self.categories:
            prefix = self._folders[category]
            for folder in ("Train", "Test"):
                labels = f"{prefix}{folder}/Label"
                masks = layout.masks_by_stem(self.root / labels)
                for name in layout.images(self.root / prefix / folder):
                    mask = f"{labels}/{masks[Path(name).stem]}" if Path(name).stem in masks else None
                    if folder == "Test" or mask is None:
                        kind, path = "defect" if mask else "good", f"{folder}/{name}"
                        found.append(
                            Sample(f"{category}/{path}", category, folder.lower(), kind, f"{prefix}{path}", mask)
                        )
        return tuple(found)


def _classes(root: Path) -> dict[str, str]:
    """Return class -> its folder relative to ``root``, "" or with a slash at its end."""
    if _is_class(root):
        return {Path(os.path.abspath(root)).name: ""}
    return {n: f"{n}/" for n in layout.subfolders(root) if _CLASS.fullmatch(n) and _is_class(root / n)}


def _is_class(folder: Path) -> bool:
    return all(layout.images(folder / split) and (folder / split / "Label").is_dir() for split in ("Train", "Test"))
