"""Transfer learning: fit on a source category, update with a few images of a target category, test both.

Paper: Xie et al., "IM-IAD", 2301.13359: 8 images of the target, for example among the screws of COAD.
Differs:
    * After the second step the source is tested again, which shows forgetting. The authors' code does not test it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.setting import Setting, training_images
from iadbe.types import Step

TO = " to "


@dataclass(frozen=True)
class Transfer(Setting):
    """Fit on all normal images of the source, update with ``k`` of the target, test both.

    Args:
        source: the first category; by default the dataset's first one
        target: the second category; by default every other one in turn
        k: number of normal training images of the target
    """

    ranges = {"k": (1, 1000)}  # in requests to a server

    source: str = ""
    target: str = ""
    k: int = 8

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Return one task per target."""
        source = self.source or next((c for c in categories if c != self.target), "")
        targets = [self.target] if self.target else [c for c in categories if c != source]
        if not source or not targets:
            raise BadConfig("transfer needs two categories, a source and a target, and there is one.")
        return tuple(f"{source}{TO}{target}" for target in targets)

    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        source, target = _split_task(task, index)
        first, few = index.train(source), index.train(target)
        if source == target:
            raise BadConfig(f"transfer.source and transfer.target are both {source}. Give another transfer.target.")
        if not 1 <= self.k <= len(few):
            raise BadConfig(f"transfer.k is {self.k}, but {target} has {len(few)} good training images.")
        tests = {source: index.test(source), target: index.test(target)}
        return (
            Step((training_images(first),), {source: tests[source]}),
            Step((training_images(rng.sample(few, self.k)),), tests),
        )


def _split_task(task: str, index: Index) -> tuple[str, str]:
    """Return (source, target), even where a category's name contains the separator."""
    parts = task.split(TO)
    pairs = [(TO.join(parts[:i]), TO.join(parts[i:])) for i in range(1, len(parts))]
    return next((p for p in pairs if set(p) <= set(index.categories)), pairs[0] if pairs else (task, task))
