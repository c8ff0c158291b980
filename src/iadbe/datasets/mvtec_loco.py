"""MVTec LOCO AD: five products with structural and logical anomalies (something is missing, surplus or misplaced).

Paper: Bergmann et al., "Beyond dents and scratches: logical constraints in unsupervised anomaly detection and
    localization", IJCV 130, 2022.
Differs: nothing.
    * The mask of an image is a folder with one file per defect. :meth:`MVTecLOCO.mask` unites them.
    * :meth:`MVTecLOCO.regions` keeps them apart, each with its saturation threshold from ``defects_config.json``: a
      share of the region's area, or a number of pixels, at most the area. The number of pixels refers to the published
      size. In resized images it is scaled with the area.
Numbers: 1772 training images, 304 normal validation images; to test 575 normal, 432 structural, 561 logical anomalies.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.dataset import Defect
from iadbe.errors import BadData
from iadbe.files import image_io, layout, mask_io
from iadbe.types import Sample

CONFIG = "defects_config.json"
PUBLISHED_PIXELS = {  # width times height of a published image
    "breakfast_box": 1600 * 1280,
    "juice_bottle": 800 * 1600,
    "pushpins": 1700 * 1000,
    "screw_bag": 1600 * 1100,
    "splicing_connectors": 1700 * 850,
}


class MVTecLOCO(MVTecLayout):
    """One folder per product; two kinds of defects, ``logical_anomalies`` and ``structural_anomalies``."""

    title: ClassVar[str] = "MVTec LOCO AD"
    year: ClassVar[int] = 2022
    paper: ClassVar[str] = 'Bergmann et al., "Beyond dents and scratches", IJCV 130, 2022'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-loco"
    layout_description: ClassVar[str] = "CATEGORY/test/logical_anomalies (MVTec LOCO AD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
            "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
            "sha256": "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        },
    )
    # category: training images, normal validation and test images, defective images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "breakfast_box": (351, 164, 173),
        "juice_bottle": (335, 148, 236),
        "pushpins": (372, 207, 172),
        "screw_bag": (360, 182, 219),
        "splicing_connectors": (354, 178, 193),
    }
    total: ClassVar[tuple[int, ...]] = (1772, 879, 993)
    # means of (structural against good) and (logical against good), as in the dataset's own evaluation
    official_metrics: ClassVar[tuple[str, ...]] = ("image_auroc.kinds", "pixel_spro", "pixel_spro.kinds")

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)

    def defects(self, sample: Sample) -> tuple[Defect, ...]:
        """Return the defects of an image one by one, each with its saturation threshold as a share of its area."""
        if sample.mask is None:
            return ()
        folder = self.root / sample.mask
        files = [folder / name for name in layout.images(folder)] if folder.is_dir() else [folder]
        saturations = _saturations(self.root / self._folders[sample.category] / CONFIG)
        found = []
        for file in files:
            mask, value = mask_io.read_mask(file), int(image_io.read_rgb(file).max())
            if value not in saturations:
                raise BadData(f"{file} has the pixel value {value}, which {CONFIG} does not list.")
            if area := int(mask.sum()):
                threshold, is_share = saturations[value]
                scale = mask.size / PUBLISHED_PIXELS.get(sample.category, mask.size)
                pixels = int(threshold * area) if is_share else min(threshold * scale, area)
                found.append(Defect(mask, max(pixels, 1) / area))
        return tuple(found)

    def digest(self, categories: Collection[str] = ()) -> str:
        """Return 16 hex digits of the index and of the configuration files of some categories, by default all."""
        return self._with_configs(super().digest(categories), categories or self.categories)

    def whole_digest(self) -> str:
        """Return the digest of version 0.1: of all categories together, and of paths below ``root``."""
        return self._with_configs(super().whole_digest(), self.categories)

    def _with_configs(self, digest: str, categories: Collection[str]) -> str:
        configs = [self.root / self._folders[category] / CONFIG for category in sorted(categories)]
        contents = [config.read_bytes() for config in configs if config.is_file()]
        return hashlib.sha256(b"\n".join([digest.encode(), *contents])).hexdigest()[:16]

    @classmethod
    def _has_own_names(cls, folder: Path, categories: list[str]) -> bool:
        """Recognise the dataset by its kinds of defects, whatever the categories are called."""
        one = folder if cls._is_category(folder) else folder / (categories or [""])[0]
        return bool({"logical_anomalies", "structural_anomalies"} & set(layout.subfolders(one / "test")))


@cache
def _saturations(file: Path) -> dict[int, tuple[float, bool]]:
    """Return pixel value -> (threshold, whether it is a share of the area rather than a number of pixels)."""
    try:
        entries = json.loads(layout.read_text(file))
        return {int(e["pixel_value"]): _checked(e) for e in entries}
    except FileNotFoundError as error:
        raise BadData(f"{file} is not there: it holds the saturation threshold of each defect.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadData(f"{file} is not a list of defects with pixel_value and saturation_threshold: {error}.") from error


def _checked(entry: dict[str, Any]) -> tuple[float, bool]:
    threshold, is_share = float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
    if threshold <= 0 or (is_share and threshold > 1):
        raise ValueError(f"a saturation of {threshold:g} is not possible")
    return threshold, is_share
