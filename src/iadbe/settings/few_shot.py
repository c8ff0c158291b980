"""Vanilla with only ``k`` good training pictures, drawn once per run.

Paper: Xie et al., "IM-IAD", 2301.13359, section III: k in {1, 2, 4, 8}.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, told
from iadbe.types import Step


@dataclass(frozen=True)
class FewShot(Setting):
    """Fit on ``k`` good pictures, test on the whole test split."""

    k: int = 4

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        train = index.train(task)
        if not 1 <= self.k <= len(train):
            raise BadConfig(f"few_shot.k is {self.k}, but {task} has {len(train)} good training pictures.")
        return (Step((told(rng.sample(train, self.k)),), {task: index.test(task)}),)
