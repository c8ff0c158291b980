"""MVTec AD, and any dataset in its layout: ``CATEGORY/train/good``, ``CATEGORY/test/KIND``, ``CATEGORY/ground_truth``.

Paper: Bergmann et al., "MVTec AD: A Comprehensive Real-World Dataset for Unsupervised Anomaly Detection", CVPR 2019.
Differs: nothing. :mod:`iadbe.data.mvtec_layout` describes how a mask is found.
Numbers: 15 categories, 3629 training images, 467 normal and 1258 defective test images.
"""

from __future__ import annotations

from typing import Any, ClassVar

from iadbe.data.mvtec_layout import MVTecLayout


class MVTecAD(MVTecLayout):
    """One folder per category; ``root`` may also be the folder of a single category."""

    title: ClassVar[str] = "MVTec AD"
    year: ClassVar[int] = 2019
    paper: ClassVar[str] = 'Bergmann et al., "MVTec AD", CVPR 2019'
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-ad"
    layout_description: ClassVar[str] = "CATEGORY/train/good with CATEGORY/test (MVTec AD)"
    recognised_by_names: ClassVar[bool] = False
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/"
            "420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            "sha256": "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
        },
    )
    # category: training images, normal test images, defective test images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "bottle": (209, 20, 63),
        "cable": (224, 58, 92),
        "capsule": (219, 23, 109),
        "carpet": (280, 28, 89),
        "grid": (264, 21, 57),
        "hazelnut": (391, 40, 70),
        "leather": (245, 32, 92),
        "metal_nut": (220, 22, 93),
        "pill": (267, 26, 141),
        "screw": (320, 41, 119),
        "tile": (230, 33, 84),
        "toothbrush": (60, 12, 30),
        "transistor": (213, 60, 40),
        "wood": (247, 19, 60),
        "zipper": (240, 32, 119),
    }
    category_groups: ClassVar[dict[str, tuple[str, ...]]] = {
        "textures": ("carpet", "grid", "leather", "tile", "wood"),
        "objects": (
            *("bottle", "cable", "capsule", "hazelnut", "metal_nut"),
            *("pill", "screw", "toothbrush", "transistor", "zipper"),
        ),
    }
    total: ClassVar[tuple[int, ...]] = (3629, 467, 1258)

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: folder with the categories, or the folder of one category
        """
        super().__init__(root)
