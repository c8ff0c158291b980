"""BTAD: three industrial products, with the folders ``ok`` and ``ko`` in the layout of MVTec AD.

Paper: Mishra et al., "VT-ADL: a vision transformer network for image anomaly detection and localization", ISIE 2021.
Differs: nothing. Images are .bmp or .png, and so are masks: they are found by their stem, whatever their ending.
Numbers: the paper speaks of 2830 images, the archive holds 2540: 1799 to train on, 451 good and 290 defective ones.
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
    looks_like: ClassVar[str] = "CATEGORY/train/ok with CATEGORY/test/ko (BTAD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://avires.dimi.uniud.it/papers/btad/btad.zip",
            "sha256": "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a",
        },
    )
    # category: images to train on, good ones to test, defective ones
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "01": (400, 21, 49),
        "02": (399, 30, 200),
        "03": (1000, 400, 41),
    }
    total: ClassVar[tuple[int, ...]] = (1799, 451, 290)
    named_only: ClassVar[bool] = False
    good: ClassVar[str] = "ok"

    def __init__(self, root: str = "") -> None:
        """Look at a folder.

        Args:
            root: the folder that holds the categories, or one category's folder
        """
        super().__init__(root)
