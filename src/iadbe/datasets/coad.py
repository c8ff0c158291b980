"""COAD: screws of 21 sub-classes, in the layout of MVTec AD with JPEG images and JPEG masks.

Paper: none is known. The sub-classes and the layout are those of the benchmark IM-IAD.
Differs: masks are JPEG, so their values are not only 0 and 255. Above 127 is defect.
Numbers: 21 categories, A1 to A8, B1 to B7, C1 to C4, D1, D2. The numbers of images are not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.files import layout, mask_io
from iadbe.types import Sample


class COAD(MVTecLayout):
    """One folder per sub-class."""

    title: ClassVar[str] = "COAD"
    licence: ClassVar[str] = "not known"
    layout_description: ClassVar[str] = "A1, B1 … with JPEG masks in the layout of MVTec AD (COAD)"
    manual_download: ClassVar[str] = (
        "No public address is known. If you have it, unpack it so that the folder holds A1 to A8, B1 to B7, C1 to C4, "
        "D1 and D2."
    )
    category_names: ClassVar[tuple[str, ...]] = (
        "A1", "A2", "A3", "A4", "A5", "A6", "A7", "A8", "B1", "B2", "B3", "B4", "B5", "B6", "B7",
        "C1", "C2", "C3", "C4", "D1", "D2",
    )  # fmt: skip

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)

    def mask(self, sample: Sample) -> np.ndarray | None:
        """Return the ground truth as (H, W) bool."""
        return None if sample.mask is None else mask_io.read_mask(self.root / sample.mask, above=127)

    @classmethod
    def _has_own_names(cls, folder: Path, categories: list[str]) -> bool:
        """Require JPEG masks as well, because the short names of the categories alone are ambiguous."""
        category = folder if cls._is_category(folder) else folder / (categories or [""])[0]
        kinds = [category / "ground_truth" / kind for kind in layout.subfolders(category / "ground_truth")]
        has_jpeg_masks = any(layout.images(kind, (".jpg", ".jpeg")) for kind in kinds)
        return has_jpeg_masks and super()._has_own_names(folder, categories)
