"""The contract of a setting: a rule that turns an index of samples into steps.

Pure: no pixels, no clock, no global random state. That is what makes a protocol testable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from random import Random
from typing import ClassVar

from iadbe.dataset import Index
from iadbe.types import Example, Sample, Step, Told


class Setting(ABC):
    """Lays out what is trained on and what is tested, in order."""

    version: ClassVar[int] = 1
    demands: ClassVar[frozenset[str]] = frozenset()  # what the detector must be able to do
    gives: ClassVar[frozenset[str]] = frozenset()  # what training pictures carry beyond the dataset's own

    def tasks(self, categories: Sequence[str]) -> tuple[str, ...]:
        """Name the tasks of a dataset; by default one per category."""
        return tuple(categories)

    @abstractmethod
    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        """Lay out one task. Equal ``rng`` states give equal layouts."""


def told(samples: Iterable[Sample], as_: Told = Told.NORMAL) -> tuple[Example, ...]:
    """Make training examples of samples, all told the same."""
    return tuple(Example(s, as_) for s in samples)


def without(samples: Iterable[Sample], gone: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return ``samples`` without ``gone``, in order."""
    left_out = {s.id for s in gone}
    return tuple(s for s in samples if s.id not in left_out)
