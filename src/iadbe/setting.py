"""The contract of a setting: a rule that turns an index of samples into steps.

Pure: no pixels, no clock, no global random state. That is what makes a protocol testable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from random import Random
from typing import ClassVar

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.types import Sample, Step, TrainingImage, TrainingLabel

ALL = "all"  # the task of all of a dataset's categories together
AND = "+"  # between the categories of a task of some of them


class Setting(ABC):
    """Lays out what is trained on and what is tested, in order.

    A demand is a word that the detector's ``can`` must hold; "merge or continue" asks for one of two.
    """

    version: ClassVar[int] = 1
    demands: ClassVar[frozenset[str]] = frozenset()  # what the detector must be able to do
    gives: ClassVar[frozenset[str]] = frozenset()  # what training images carry beyond the dataset's own

    def demanded(self) -> frozenset[str]:
        """Return what the detector must be able to do for these parameters."""
        return self.demands

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Name the tasks of the wanted categories, of those ``present``; by default one per category."""
        return tuple(categories)

    @abstractmethod
    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        """Lay out one task. Equal ``rng`` states give equal layouts."""


def training_images(
    samples: Iterable[Sample], label: TrainingLabel = TrainingLabel.NORMAL
) -> tuple[TrainingImage, ...]:
    """Make training images of samples, all with the same label."""
    return tuple(TrainingImage(s, label) for s in samples)


def with_true_labels(samples: Iterable[Sample]) -> tuple[TrainingImage, ...]:
    """Make training images of samples with their true labels: masked where a mask shows the defect."""
    return tuple(TrainingImage(s, _true_label(s)) for s in samples)


def _true_label(sample: Sample) -> TrainingLabel:
    if not sample.is_anomaly:
        return TrainingLabel.NORMAL
    return TrainingLabel.ANOMALOUS if sample.mask is None else TrainingLabel.MASKED


def without(samples: Iterable[Sample], gone: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return ``samples`` without ``gone``, in order."""
    left_out = {s.id for s in gone}
    return tuple(s for s in samples if s.id not in left_out)


def share_of(share: float, count: int) -> int:
    """Return how many whole images a share of ``count`` is; 0.29 of 100 are 29, whatever the binary rounding."""
    return int(share * count + 1e-9)


def together(categories: Sequence[str], present: Sequence[str] = ()) -> str:
    """Name the task of several categories at once."""
    whole = not present or set(categories) == set(present)
    return ALL if whole and len(categories) > 1 and ALL not in categories else AND.join(categories)


def categories_of(task: str, index: Index) -> tuple[str, ...]:
    """Return the categories of a task that :func:`together` has named, in its order."""
    if task in index.categories:
        return (task,)
    found = index.categories if task == ALL else tuple(task.split(AND))
    if unknown := [c for c in found if c not in index.categories]:
        raise BadConfig(f"there is no category {unknown[0]!r}. There are: {', '.join(index.categories)}.")
    return found
