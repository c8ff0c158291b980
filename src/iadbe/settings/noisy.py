"""Label noise: vanilla with some defective training images that are labelled normal.

Paper: Xie et al., "IM-IAD", 2301.13359: ratios 0.05 to 0.2 of the normal training images, defects from the test
    split. Jiang et al., "SoftPatch", NeurIPS 2022, 2403.14233: ratio of all training images.
Differs:
    * Only defective images are added. The authors' code of IM-IAD draws some normal ones by mistake.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, share_of, training_images, without
from iadbe.types import Step


@dataclass(frozen=True)
class Noisy(Setting):
    """Fit on all normal images and some defective ones labelled normal, test on the rest.

    Args:
        ratio: defective images per training image
        of: good, the ratio is relative to the normal training images; or all, to all training images
        overlap: keep the defective training images in the test split, too
        cap: largest share of a category's defective test images that may be moved to training
    """

    ratio: float = 0.1
    of: Literal["good", "all"] = "good"
    overlap: bool = False
    cap: float = 0.75

    def __post_init__(self) -> None:
        if not 0 <= self.ratio < 1 or not 0 < self.cap <= 1:
            raise BadConfig(
                f"noisy.ratio is from 0 to below 1 and noisy.cap above 0 and up to 1, not {self.ratio} and {self.cap}."
            )
        if self.of not in ("good", "all"):
            raise BadConfig(f"noisy.of is good or all, not {self.of!r}.")

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        train, defects = index.train(task), index.anomalies(task)
        ratio = self.ratio / (1 - self.ratio) if self.of == "all" else self.ratio
        count = min(share_of(ratio, len(train)), share_of(self.cap, len(defects)))
        if self.ratio and not count:
            raise BadConfig(
                f"noisy.ratio {self.ratio:g} of {task}'s {len(train)} good training and {len(defects)} defective test "
                "images is less than one image, so there is no noise."
            )
        noise = rng.sample(defects, count)
        test = index.test(task) if self.overlap else without(index.test(task), noise)
        return (Step((training_images(train) + training_images(noise),), {task: test}),)
