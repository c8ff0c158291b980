"""MVTec AD 2: eight hard scenarios (glass, bulk goods, dark field), with all of its test splits.

Paper: Heckler-Kram et al., "The MVTec AD 2 dataset: advanced scenarios for unsupervised anomaly detection", 2025.
Differs:
    * ``validation/good`` becomes the split "val".
    * The test split is one of three. ``test_public`` has labels and masks. Those of ``test_private`` and
      ``test_private_mixed`` (new lighting conditions among the known ones) are not published: a run on them gives
      scores but no metrics, and only the server benchmark.mvtec.com rates them (``iadbe submit``).
Numbers: 8 categories, more than 8000 images; either private split has 321 images of can, 314 of fabric, 255 of
    fruit_jelly, 277 of rice, 142 of sheet_metal, 276 of vial, 232 of wallplugs and 228 of walnuts (the server's
    utilities). The other numbers per category are not known here.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal, get_args

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.files import layout
from iadbe.types import UNLABELLED, Sample

TestType = Literal["public", "private", "private_mixed"]


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
    added: ClassVar[dict[str, Any]] = {"test_type": "public"}
    recognised_by_names: ClassVar[bool] = False
    test_folder: ClassVar[str] = "test_public"
    mask_folder: ClassVar[str] = "test_public/ground_truth"

    def __init__(self, root: str = "", test_type: Literal["public", "private", "private_mixed"] = "public") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
            test_type: the test split: public, or private or private_mixed, which have no labels
        """
        super().__init__(root)
        if test_type not in get_args(TestType):
            hint = did_you_mean(str(test_type), get_args(TestType))
            raise BadConfig(f"mvtec_ad2.test_type is {test_type!r}, not one of {', '.join(get_args(TestType))}.{hint}")
        self.test_type = test_type

    def _index(self) -> list[Sample]:
        if self.test_type == "public":
            return super()._index()
        found = [sample for sample in super()._index() if sample.split != "test"]
        for category in self.categories:
            folder = f"test_{self.test_type}"
            prefix = self._folders[category]
            names = layout.images(self.root / f"{prefix}{folder}")
            if not names:
                raise BadData(f"found no images in {self.root / prefix / folder}, which the data set as published has.")
            for name in names:
                path = f"{folder}/{name}"
                found.append(Sample(f"{category}/{path}", category, "test", UNLABELLED, f"{prefix}{path}"))
        return found
