"""MPDD: six kinds of painted metal parts, seen from varying angles, in the layout of MVTec AD.

Paper: Jezek et al., "Deep learning-based defect detection of metal parts: evaluating current methods in complex
    conditions", ICUMT 2021.
Differs: nothing.
Numbers: 888 training images, 176 normal and 282 defective test images.
"""

from __future__ import annotations

from typing import ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class MPDD(MVTecLayout):
    """One folder per part."""

    title: ClassVar[str] = "MPDD"
    year: ClassVar[int] = 2021
    paper: ClassVar[str] = 'Jezek et al., "Deep learning-based defect detection of metal parts", ICUMT 2021'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://github.com/stepanje/MPDD"
    layout_description: ClassVar[str] = "bracket_black, metal_plate, tubes … in the layout of MVTec AD (MPDD)"
    manual_download: ClassVar[str] = (
        "Fetch the archive through the link on https://github.com/stepanje/MPDD and unpack it so that the folder holds "
        "bracket_black, bracket_brown, bracket_white, connector, metal_plate and tubes."
    )
    # category: training images, normal test images, defective test images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "bracket_black": (289, 32, 47),
        "bracket_brown": (185, 26, 51),
        "bracket_white": (110, 30, 30),
        "connector": (128, 30, 14),
        "metal_plate": (54, 26, 71),
        "tubes": (122, 32, 69),
    }
    total: ClassVar[tuple[int, ...]] = (888, 176, 282)

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
