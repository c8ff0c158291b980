"""One category at a time, all of its good training images: the setting of MVTec AD.

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
    """Fit on every good training image of a category, test on its whole test split."""

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        return (Step((training_images(index.train(task)),), {task: index.test(task)}),)
