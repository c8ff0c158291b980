"""One detector for all categories, which is not told the category.

Paper: You et al., "UniAD", NeurIPS 2022, 2206.03687: numbers are per category, and their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.setting import Setting, categories_of, together, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class MultiClass(Setting):
    """Fit once on the good training images of all categories, test on each category's test split."""

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Name the one task of all wanted categories."""
        return (together(categories, present),)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        categories = categories_of(task, index)
        train = tuple(s for category in categories for s in index.train(category))
        return (Step((training_images(train),), {category: index.test(category) for category in categories}),)
