"""MVTec2D-3D: the colour images of MVTec 3D-AD in the layout of MVTec AD, as some benchmarks keep them.

Paper: Bergmann et al., "The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and localization", VISAPP 2022.
Differs:
    * There is no depth, and no validation images where the copy has no ``validation``.
    * The split is the published one.
Numbers: 10 categories, 2656 training images, 249 normal and 948 defective test images, 294 validation images.
"""

from __future__ import annotations

from typing import ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class MVTec2D3D(MVTecLayout):
    """One folder per category."""

    title: ClassVar[str] = "MVTec2D-3D"
    year: ClassVar[int] = 2022
    paper: ClassVar[str] = 'Bergmann et al., "The MVTec 3D-AD dataset", VISAPP 2022'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad"
    layout_description: ClassVar[str] = "bagel, carrot, tire … in the layout of MVTec AD (MVTec2D-3D)"
    manual_download: ClassVar[str] = (
        "It is MVTec 3D-AD without depth in another layout. `iadbe data get mvtec_3d` fetches the original, which the "
        "reader mvtec_3d reads with the same images and the same split."
    )
    category_names: ClassVar[tuple[str, ...]] = (
        "bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire",
    )  # fmt: skip

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
