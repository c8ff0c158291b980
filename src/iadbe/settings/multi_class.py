"""Multi-class: one detector for all categories, without the category as input.

Paper: You et al., "UniAD", NeurIPS 2022, 2206.03687. Metrics are per category, and their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.setting import Setting, categories_of, joint_task, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class MultiClass(Setting):
    """Fit once on the normal training images of all categories, test on each category's test split."""

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the one task of all chosen categories."""
        return (joint_task(categories, present),)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        categories = categories_of(task, index)
        train = tuple(s for category in categories for s in index.train(category))
        return (Step((training_images(train),), {category: index.test(category) for category in categories}),)
