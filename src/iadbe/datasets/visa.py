"""VisA: twelve products (circuit boards, several objects in one image, single objects), with the official split.

Paper: Zou et al., "SPot-the-Difference self-supervised pre-training for anomaly detection and segmentation", ECCV 2022.
Differs: nothing.
    * The split is that of ``split_csv/1cls.csv``. The splits for supervised training are not read.
    * Masks hold class numbers of defects: all that is not 0 is a defect. Kinds are not kept apart, because an image may
      show several.
    * A copy in the layout of MVTec AD (``CATEGORY/train/good``, ``CATEGORY/test/bad``) is read too.
Numbers: 8659 training images, 962 normal and 1200 defective test images.
"""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.files import layout, mask_io
from iadbe.files.bad_labels import BadLabels
from iadbe.files.layout import LayoutMatch
from iadbe.types import Sample

SPLIT = "split_csv/1cls.csv"
COLUMNS = ("object", "split", "label", "image", "mask")


class VisA(MVTecLayout):
    """One folder per product, with the split in a table beside them."""

    title: ClassVar[str] = "VisA"
    year: ClassVar[int] = 2022
    paper: ClassVar[str] = 'Zou et al., "SPot-the-Difference", ECCV 2022'
    licence: ClassVar[str] = "CC BY 4.0"
    url: ClassVar[str] = "https://github.com/amazon-science/spot-diff"
    layout_description: ClassVar[str] = "split_csv/1cls.csv with CATEGORY/Data/Images (VisA)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",
            "sha256": "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
        },
    )
    # category: training images, normal test images, defective test images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "candle": (900, 100, 100),
        "capsules": (542, 60, 100),
        "cashew": (450, 50, 100),
        "chewinggum": (453, 50, 100),
        "fryum": (450, 50, 100),
        "macaroni1": (900, 100, 100),
        "macaroni2": (900, 100, 100),
        "pcb1": (904, 100, 100),
        "pcb2": (901, 100, 100),
        "pcb3": (905, 101, 100),
        "pcb4": (904, 101, 100),
        "pipe_fryum": (450, 50, 100),
    }
    added: ClassVar[dict[str, Any]] = {"bad_labels": "error"}
    total: ClassVar[tuple[int, ...]] = (8659, 962, 1200)

    def __init__(self, root: str = "", bad_labels: Literal["error", "drop"] = "error") -> None:
        """Index a folder.

        Args:
            root: folder with split_csv and the categories
            bad_labels: raise an error that names all lines that cannot be used, or drop their images
        """
        Dataset.__init__(self, root)
        self._bad_labels = BadLabels(bad_labels, "visa.bad_labels")
        self._split = self.root / SPLIT
        if not self._split.is_file():
            if not self._categories(self.root):
                raise BadData(
                    f"{self.root} holds neither {SPLIT} nor CATEGORY/train/good, but {layout.contents(self.root)}. "
                    "Give the folder that holds split_csv: it comes with the archive."
                )
            super().__init__(root)

    @classmethod
    def recognise(cls, folder: Path) -> LayoutMatch | None:
        """Match a folder in this layout."""
        if not (folder / SPLIT).is_file():
            return super().recognise(folder)
        there = [name for name in layout.subfolders(folder) if (folder / name / "Data/Images").is_dir()]
        return LayoutMatch(f"VisA ({len(there)} categories, official split)") if there else None

    @property
    def categories(self) -> tuple[str, ...]:
        """The products that are present."""
        if not self._split.is_file():
            return super().categories
        return tuple(sorted({s.category for s in self._samples}))

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool."""
        return None if sample.mask is None else mask_io.read_mask(self.root / sample.mask, above=0)

    def _index(self) -> list[Sample]:
        if not self._split.is_file():
            return super()._index()
        columns, *lines = layout.read_table(self._split) or [[]]
        rows = [dict(zip_longest(columns, line[: len(columns)], fillvalue="")) for line in lines if line]
        if not rows or not set(COLUMNS) <= set(rows[0]):
            raise BadData(f"{self._split} has no table with the columns {', '.join(COLUMNS)}.")
        present = set(layout.subfolders(self.root))
        found = []
        for number, row in enumerate(rows, start=2):
            if row["object"] in present:
                with self._bad_labels.collected():
                    found.append(self._sample(row, number))
        self._bad_labels.check("lines")
        if not found:
            raise BadData(f"{self.root} holds none of the categories that {SPLIT} names.")
        return sorted(found, key=lambda s: (s.category, s.split != "train", s.image))

    def _sample(self, row: dict[str, str], number: int) -> Sample:
        category, split, path = row["object"], row["split"], row["image"]
        if split not in ("train", "test") or row["label"] not in ("normal", "anomaly") or not path:
            raise BadData(f"{self._split}, line {number}: split is train or test, label is normal or anomaly.")
        defect = "good" if row["label"] == "normal" else "anomaly"
        return Sample(path, category, split, defect, path, row["mask"] or None)
