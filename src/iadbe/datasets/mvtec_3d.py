"""MVTec 3D-AD: ten objects, each image with an organised point cloud (x, y and z of every pixel).

Paper: Bergmann et al., "The MVTec 3D-AD dataset for unsupervised 3D anomaly detection and localization", VISAPP 2022.
Differs:
    * Depth is the z of the point cloud in metres, nan where nothing was measured (0, 0, 0).
    * ``validation/good`` becomes the split "val".
    * The masks of normal images, all black, are not read.
    * A copy without point clouds is read too. It gives no depth.
Numbers: 2656 training images, 294 normal validation images, 249 normal and 948 defective test images.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.files import depth, layout
from iadbe.types import Sample


class MVTec3D(MVTecLayout):
    """One folder per object; ``KIND/rgb``, ``KIND/xyz`` and ``KIND/gt`` hold the files of one image under one stem."""

    title: ClassVar[str] = "MVTec 3D-AD"
    year: ClassVar[int] = 2022
    paper: ClassVar[str] = 'Bergmann et al., "The MVTec 3D-AD dataset", VISAPP 2022'
    gives: frozenset[str] = frozenset({"image", "mask", "depth"})
    licence: ClassVar[str] = "CC BY-NC-SA 4.0"
    url: ClassVar[str] = "https://www.mvtec.com/company/research/datasets/mvtec-3d-ad"
    layout_description: ClassVar[str] = "CATEGORY/train/good/rgb (MVTec 3D-AD)"
    archives: ClassVar[tuple[dict[str, Any], ...]] = (
        {
            "url": "https://www.mydrive.ch/shares/150646/25de33f1276dd418cd856f2f48a84cdb/download/"
            "428824485-1643299897/mvtec_3d_anomaly_detection.tar.xz",
            "md5": "d8bb2800fbf3ac88e798da6ae10dc819",
        },
    )
    # category: training images, normal validation and test images, defective images
    counts: ClassVar[dict[str, tuple[int, ...]]] = {
        "bagel": (244, 44, 88),
        "cable_gland": (223, 44, 87),
        "carrot": (286, 56, 132),
        "cookie": (210, 50, 103),
        "dowel": (288, 60, 104),
        "foam": (236, 47, 80),
        "peach": (361, 68, 106),
        "potato": (300, 55, 92),
        "rope": (298, 65, 69),
        "tire": (210, 54, 87),
    }
    total: ClassVar[tuple[int, ...]] = (2656, 543, 948)
    recognised_by_names: ClassVar[bool] = False
    image_subfolder: ClassVar[str] = "/rgb"

    def __init__(self, root: str = "") -> None:
        """Index a folder.

        Args:
            root: the folder that holds the categories, or one category's folder
        """
        super().__init__(root)
        if not all(self._depth_paths(f"{prefix}train/{self.good_folder}") for prefix in self._folders.values()):
            self.gives = self.gives - {"depth"}

    def points(self, sample: Sample) -> np.ndarray | None:
        """Return x, y and z as they were measured, in metres."""
        return None if sample.depth is None else depth.read_points(self.root / sample.depth)

    def _mask_paths(self, prefix: str, kind: str) -> dict[str, str]:
        folder = f"{prefix}{self.test_folder}/{kind}/gt"
        return {stem: f"{folder}/{name}" for stem, name in layout.masks_by_stem(self.root / folder).items()}

    def _depth_paths(self, folder: str) -> dict[str, str]:
        files = layout.images(self.root / folder / "xyz", (".tiff", ".tif"))
        return {Path(name).stem: f"{folder}/xyz/{name}" for name in files}
