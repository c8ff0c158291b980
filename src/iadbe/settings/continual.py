"""Continual learning: one category after the other; after each, all categories so far are tested.

Paper: Xie et al., "IM-IAD", 2301.13359, section III. The forgetting measure of a category is its best value after any
    earlier step minus its value after the last step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig, did_you_mean
from iadbe.setting import Setting, categories_of, joint_task, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class Continual(Setting):
    """Fit on the first category, then update with each later one: by merging, by continued training or by a new fit.

    Args:
        order: order of the categories; by default that of the dataset
        shuffle: draw the order with the seed
    """

    order: tuple[str, ...] = ()
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.order and self.shuffle:
            raise BadConfig("continual.order and continual.shuffle exclude one another. Give one of them.")
        if len(set(self.order)) < len(self.order):
            raise BadConfig(f"continual.order names a category twice: {', '.join(self.order)}.")

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the one task of all chosen categories."""
        return (joint_task(categories, present),)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        categories = list(categories_of(task, index))
        for category in self.order:
            if category not in categories:
                hint = did_you_mean(category, categories)
                raise BadConfig(f"continual.order has {category!r}.{hint} There are: {', '.join(categories)}.")
        categories = list(self.order) or categories
        if self.shuffle:
            rng.shuffle(categories)
        if len(categories) < 2:
            raise BadConfig(f"continual needs at least two categories, and there is only {', '.join(categories)}.")
        return tuple(
            Step(
                (training_images(index.train(category)),), {seen: index.test(seen) for seen in categories[: number + 1]}
            )
            for number, category in enumerate(categories)
        )
