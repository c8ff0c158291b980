"""One category after the other, without seeing earlier ones again; every category seen so far is tested each time.

Paper: Xie et al., "IM-IAD", 2301.13359, section III. The forgetting measure of a category is its best value after any
    earlier step less its value after the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig, did_you_mean
from iadbe.setting import Setting, categories_of, together, training_images
from iadbe.types import Step


@dataclass(frozen=True)
class Continual(Setting):
    """Fit on the first category, learn more of each later one: some detectors merge, some train on, the rest fit anew.

    Args:
        order: the categories in the order in which they come; none: as the dataset names them
        shuffle: let the seed decide the order
    """

    order: tuple[str, ...] = ()
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.order and self.shuffle:
            raise BadConfig("continual.order says the order, so continual.shuffle cannot draw one. Give one of them.")
        if len(set(self.order)) < len(self.order):
            raise BadConfig(f"continual.order names a category twice: {', '.join(self.order)}.")

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Name the one task of all wanted categories."""
        return (together(categories, present),)

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
            raise BadConfig(f"continual needs at least two categories, and there is {', '.join(categories)} alone.")
        return tuple(
            Step(
                (training_images(index.train(category)),), {seen: index.test(seen) for seen in categories[: number + 1]}
            )
            for number, category in enumerate(categories)
        )
