"""DTD-Synthetic: twelve randomly rotated and cropped textures with synthetic defects, in the layout of MVTec AD.

Paper: Aota, Tong, Okatani, "Zero-shot versus many-shot: unsupervised texture anomaly detection", WACV 2023.
Differs: nothing.
Numbers: 12 categories. The numbers of images are not known here.
"""

from __future__ import annotations

from typing import ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class DTDSynthetic(MVTecLayout):
    """One folder per texture."""

    title: ClassVar[str] = "DTD-Synthetic"
    year: ClassVar[int] = 2023
    paper: ClassVar[str] = 'Aota et al., "Zero-shot versus many-shot", WACV 2023'
    licence: ClassVar[str] = "not known"
    url: ClassVar[str] = "https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1"
    layout_description: ClassVar[str] = "Blotchy_099, Woven_001 … in the layout of MVTec AD (DTD-Synthetic)"
    manual_download: ClassVar[str] = (
        "Fetch it from https://drive.google.com/drive/folders/10OyPzvI3H6llCZBxKxFlKWt1Pw1tkMK1 and unpack it so that "
        "the folder holds Blotchy_099, Fibrous_183 and the other ten textures."
    )
    category_names: ClassVar[tuple[str, ...]] = (
        "Blotchy_099", "Fibrous_183", "Marbled_078", "Matted_069", "Mesh_114", "Perforated_037", "Stratified_154",
        "Woven_001", "Woven_068", "Woven_104", "Woven_125", "Woven_127",
    )  # fmt: skip

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
