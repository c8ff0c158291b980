"""MVTec AD 2: eight hard scenarios (glass, bulk goods, dark field), with the public test split.

Paper: Heckler-Kram et al., "The MVTec AD 2 dataset: advanced scenarios for unsupervised anomaly detection", 2025.
Differs:
    * ``test_private`` and ``test_private_mixed`` are left out. Their labels are not published; only the server
      benchmark.mvtec.com scores them.
    * ``validation/good`` becomes the split "val".
Numbers: 8 categories, more than 8000 images. The numbers per category are not known here.
"""

from __future__ import annotations

from typing import Any, ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class MVTecAD2(MVTecLayout):
    """One folder per category; one kind of defect, ``bad``."""

    title: ClassVar[str] = "MVTec AD 2"
    year: ClassVar[int] = 2025
    paper: ClassVar[str] = 'Heckler-Kram et al., "The MVTec AD 2 dataset", 2025'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad-2"
    layout_description: ClassVar[str] = "CATEGORY/train/good with CATEGORY/test_public (MVTec AD 2)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://www.mydrive.ch/shares/150997/701c90d3aea6588f404936e32a674602/download/"
            "466712769-1743429042/mvtec_ad_2.tar.gz",
            "sha256": "c0ded99ef32bfc8e352d52beb44515e5b292b8598cb963aadfa91ca0763505e4",
        },
    )
    category_names: ClassVar[tuple[str, ...]] = (
        "can", "fabric", "fruit_jelly", "rice", "sheet_metal", "vial", "wallplugs", "walnuts",
    )  # fmt: skip
    recognised_by_names: ClassVar[bool] = False
    test_folder: ClassVar[str] = "test_public"
    mask_folder: ClassVar[str] = "test_public/ground_truth"

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
