"""BTAD: three industrial products, with the folders ``ok`` and ``ko`` in the layout of MVTec AD.

Paper: Mishra et al., "VT-ADL: a vision transformer network for image anomaly detection and localization", ISIE 2021.
Differs: nothing. Images and masks are .bmp or .png. A mask is found by its stem, whatever its extension.
Numbers: the paper counts 2830 images, the archive holds 2540: 1799 training images, 451 normal and 290 defective test
    images.
"""

from __future__ import annotations

from typing import Any, ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class BTAD(MVTecLayout):
    """One folder per product: 01, 02, 03."""

    title: ClassVar[str] = "BTAD"
    year: ClassVar[int] = 2021
    paper: ClassVar[str] = 'Mishra et al., "VT-ADL", ISIE 2021'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://github.com/pankajmishra000/VT-ADL"
    layout_description: ClassVar[str] = "CATEGORY/train/ok with CATEGORY/test/ko (BTAD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            "sha256": "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        },
    )
    # category: training images, normal test images, defective test images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "01": (400, 21, 49),
        "02": (399, 30, 200),
        "03": (1000, 400, 41),
    }
    total: ClassVar[tuple[int, ...]] = (1799, 451, 290)
    recognised_by_names: ClassVar[bool] = False
    good_folder: ClassVar[str] = "ok"

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
