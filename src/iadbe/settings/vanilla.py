"""One-class, the setting of MVTec AD: one detector per category, fitted on its normal training images.

Paper: Bergmann et al., "MVTec AD", CVPR 2019.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.setting import Setting, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class Vanilla(Setting):
    """Fit on every normal training image of a category, test on its whole test split."""

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        return (Step((training_images(index.train(task)),), {task: index.test(task)}),)
