"""MVTec2D-3D: the colour images of MVTec 3D-AD, laid out as MVTec AD, as some benchmarks keep them.

Paper: Bergmann et al., "The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and localization", VISAPP 2022.
Differs: from MVTec 3D-AD by leaving out the depth, and, where the copy has no ``validation``, those images too. The
    published split is the same.
Numbers: 10 categories, 2656 images to train on, 249 good and 948 defective ones to test; 294 more to validate.
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
    looks_like: ClassVar[str] = "bagel, carrot, tire … in the layout of MVTec AD (MVTec2D-3D)"
    by_hand: ClassVar[str] = (
        "It is MVTec 3D-AD without depth, laid out anew: `iadbe data get mvtec_3d` fetches the original, which the "
        "reader mvtec_3d reads with the same images and the same split."
    )
    known: ClassVar[tuple[str, ...]] = (
        "bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire",
    )  # fmt: skip

    def __init__(self, root: str = "") -> None:
        """Look at a folder.

        Args:
            root: the folder that holds the categories, or one category's folder
        """
        super().__init__(root)
