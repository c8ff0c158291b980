"""Fully supervised: normal and labelled defective training images, an upper bound for the other settings.

Paper: Božič et al., "Mixed supervision for surface-defect detection", 2104.06064: the defects of the training split,
    where a dataset has any (KolektorSDD2).
Differs: otherwise a share of every kind of defect is taken from the test split.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, share_of, training_images, with_true_labels, without
from iadbe.types import Sample, Step


@dataclass(frozen=True)
class Supervised(Setting):
    """Fit on all normal images and on labelled defects of every kind, test on the other images.

    Args:
        share: share of each kind's defective test images that is labelled, where the training split has no defects
    """

    gives = frozenset({"labels"})

    share: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise BadConfig(f"supervised.share is above 0 and below 1, not {self.share}.")

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        test = index.test(task)
        labelled = [s for s in index.samples if s.category == task and s.split == "train" and s.is_anomaly]
        if not labelled:
            labelled = self._drawn(index.anomalies(task), rng)
            test = without(test, labelled)
        if not labelled:
            raise BadConfig(f"{task} has too few defective images to train on some and test on others.")
        return (Step((training_images(index.train(task)) + with_true_labels(labelled),), {task: test}),)

    def _drawn(self, defects: tuple[Sample, ...], rng: Random) -> list[Sample]:
        """Draw the share of each kind, and leave at least one of each kind in the test."""
        drawn = []
        for kind in sorted({s.defect for s in defects}):
            mine = [s for s in defects if s.defect == kind]
            drawn += rng.sample(mine, min(max(1, share_of(self.share, len(mine))), len(mine) - 1))
        return drawn
