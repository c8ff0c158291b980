"""Fit on one category, test on all categories: images of the others are scored by a detector that never saw them."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class CrossCategory(Setting):
    """Fit on the normal training images of a category, test on the test splits of all categories, its own first."""

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        train = index.train(task)
        others = [category for category in index.categories if category != task]
        if not others:
            raise BadConfig(f"cross_category needs other categories than {task} to test on, and there are none.")
        return (Step((training_images(train),), {category: index.test(category) for category in (task, *others)}),)
