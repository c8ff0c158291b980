"""Zero-shot: no training images; transductive: the unlabelled test images serve as training images.

Paper: Jeong et al., "WinCLIP", CVPR 2023, 2303.14814; transductive: Li et al., "MuSc", ICLR 2024, 2401.16753: the
    detector sees all unlabelled test images before it scores each.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.setting import Setting, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class ZeroShot(Setting):
    """Test on the whole test split, without fitting or after fitting on the test images without their labels.

    Args:
        transductive: fit on the test images themselves, all labelled normal
    """

    demands = frozenset({"zero-shot"})

    transductive: bool = False

    def demanded(self) -> frozenset[str]:
        """Return the demand of the chosen mode."""
        return frozenset({"transductive"}) if self.transductive else self.demands

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        test = index.test(task)
        return (Step((training_images(test),) if self.transductive else (), {task: test}),)
