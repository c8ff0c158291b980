"""MVTec LOCO AD: five products with structural defects and logical ones: something is missing, too many, misplaced.

Paper: Bergmann et al., "Beyond dents and scratches: logical constraints in unsupervised anomaly detection and
    localization", IJCV 130, 2022.
Differs: nothing. An image's mask is a folder, one file for each defect; :meth:`MVTecLOCO.mask` unites them,
    :meth:`MVTecLOCO.regions` keeps them apart, each with the saturation that ``defects_config.json`` gives to its pixel
    value: a share of its area, or a number of pixels, at most its area. That number is of the published size; where
    images were made smaller, it is scaled with their area.
Numbers: 1772 images to train on, 304 good ones to validate, 575 good, 432 structural and 561 logical ones to test.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.dataset import Region
from iadbe.errors import BadData
from iadbe.files import image_io, layout
from iadbe.types import Sample

CONFIG = "defects_config.json"
PIXELS = {  # of a published image, width times height
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
    looks_like: ClassVar[str] = "CATEGORY/test/logical_anomalies (MVTec LOCO AD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://www.mydrive.ch/shares/48237/1b9106ccdfbb09a0c414bd49fe44a14a/download/"
            "430647091-1646842701/mvtec_loco_anomaly_detection.tar.xz",
            "sha256": "9e7c84dba550fd2e59d8e9e231c929c45ba737b6b6a6d3814100f54d63aae687",
        },
    )
    # category: images to train on, good ones to validate and to test, defective ones
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "breakfast_box": (351, 164, 173),
        "juice_bottle": (335, 148, 236),
        "pushpins": (372, 207, 172),
        "screw_bag": (360, 182, 219),
        "splicing_connectors": (354, 178, 193),
    }
    total: ClassVar[tuple[int, ...]] = (1772, 879, 993)

    def __init__(self, root: str = "") -> None:
        """Look at a folder.

        Args:
            root: the folder that holds the categories, or one category's folder
        """
        super().__init__(root)

    def regions(self, sample: Sample) -> tuple[Region, ...]:
        """Return the defects of an image one by one, each with the share of it at which its overlap is full."""
        if sample.mask is None:
            return ()
        folder = self.root / sample.mask
        files = [folder / name for name in layout.images(folder)] if folder.is_dir() else [folder]
        saturations = _saturations(self.root / self._folders[sample.category] / CONFIG)
        found = []
        for file in files:
            mask, value = image_io.read_mask(file), int(image_io.read_rgb(file).max())
            if value not in saturations:
                raise BadData(f"{file} has the pixel value {value}, of which {CONFIG} says nothing.")
            if area := int(mask.sum()):
                threshold, is_share = saturations[value]
                scale = mask.size / PIXELS.get(sample.category, mask.size)
                pixels = int(threshold * area) if is_share else min(threshold * scale, area)
                found.append(Region(mask, max(pixels, 1) / area))
        return tuple(found)

    def digest(self) -> str:
        """Return 16 hex digits of the index and of what the configurations say."""
        configs = [self.root / self._folders[category] / CONFIG for category in self.categories]
        said = [config.read_bytes() for config in configs if config.is_file()]
        return hashlib.sha256(b"\n".join([super().digest().encode(), *said])).hexdigest()[:16]

    @classmethod
    def _is_named(cls, folder: Path, categories: list[str]) -> bool:
        """Know it by its kinds of defects, whatever the categories are called."""
        one = folder if cls._is_category(folder) else folder / (categories or [""])[0]
        return bool({"logical_anomalies", "structural_anomalies"} & set(layout.subfolders(one / "test")))


@cache
def _saturations(file: Path) -> dict[int, tuple[float, bool]]:
    """Return pixel value -> (threshold, whether it is a share of the area rather than a number of pixels)."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {int(e["pixel_value"]): _checked(e) for e in entries}
    except FileNotFoundError as error:
        raise BadData(f"{file} is not there: it says how much of each defect must be found.") from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadData(f"{file} is not a list of defects with pixel_value and saturation_threshold: {error}.") from error


def _checked(entry: dict[str, Any]) -> tuple[float, bool]:
    threshold, is_share = float(entry["saturation_threshold"]), bool(entry["relative_saturation"])
    if threshold <= 0 or (is_share and threshold > 1):
        raise ValueError(f"a saturation of {threshold:g} is not possible")
    return threshold, is_share
