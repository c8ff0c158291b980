"""The contract of a setting: a pure function from an index of samples to steps of training and testing.

It reads no pixels, no clock and no global random state, so that a protocol can be tested.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from random import Random
from typing import ClassVar

from iadbe.dataset import Index
from iadbe.errors import BadConfig
from iadbe.types import Sample, Step, TrainingImage, TrainingLabel

ALL = "all"  # the task of all categories of a dataset
JOINED_BY = "+"  # joins the names of a task of several categories


class Setting(ABC):
    """Defines what is trained on and what is tested, in order.

    A demand is a word that the detector's ``can`` must hold; "merge or continue" demands one of two.
    """

    version: ClassVar[int] = 1
    demands: ClassVar[frozenset[str]] = frozenset()  # capabilities that the detector needs
    gives: ClassVar[frozenset[str]] = frozenset()  # what training images get beyond the dataset's own, such as labels

    def demanded(self) -> frozenset[str]:
        """Return the capabilities that the detector needs with these parameters."""
        return self.demands

    def tasks(self, categories: Sequence[str], present: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the tasks of the chosen categories, out of those ``present``; by default one per category."""
        return tuple(categories)

    @abstractmethod
    def steps(self, task: str, index: Index, rng: Random) -> tuple[Step, ...]:
        """Return the steps of one task. Equal ``rng`` states give equal steps."""


def training_images(
    samples: Iterable[Sample], label: TrainingLabel = TrainingLabel.NORMAL
) -> tuple[TrainingImage, ...]:
    """Return training images of the samples, all with the same label."""
    return tuple(TrainingImage(s, label) for s in samples)


def with_true_labels(samples: Iterable[Sample]) -> tuple[TrainingImage, ...]:
    """Return training images with their true labels: masked where there is a mask of the defect."""
    return tuple(TrainingImage(s, _true_label(s)) for s in samples)


def _true_label(sample: Sample) -> TrainingLabel:
    if not sample.is_anomaly:
        return TrainingLabel.NORMAL
    return TrainingLabel.ANOMALOUS if sample.mask is None else TrainingLabel.MASKED


def without(samples: Iterable[Sample], excluded: Iterable[Sample]) -> tuple[Sample, ...]:
    """Return ``samples`` without ``excluded`` and without the other images of their groups, in order.

    Raises :class:`BadConfig` where no defect is left.
    """
    samples, excluded = tuple(samples), tuple(excluded)
    groups = {s.group_id for s in excluded}
    left = tuple(s for s in samples if s.group_id not in groups)
    ids = {s.id for s in excluded}
    if any(s.is_anomaly and s.id not in ids for s in samples) and not any(s.is_anomaly for s in left):
        raise BadConfig(
            f"no defect is left to test: with {len(groups)} chosen images or groups of dependent images, all of "
            f"{samples[0].category}'s defects are taken out."
        )
    return left


def categories_in(steps: Iterable[Step]) -> tuple[str, ...]:
    """Return the categories of all images that some steps train on or test, sorted."""
    found: set[str] = set()
    for step in steps:
        found.update(sample.category for shard in step.shards for sample, _ in shard)
        found.update(sample.category for test in step.tests.values() for sample in test)
        found.update(sample.category for sample in step.held_out)
    return tuple(sorted(found))


def share_of(share: float, count: int) -> int:
    """Return a share of ``count``, rounded down; 0.29 of 100 are 29, despite binary rounding."""
    return int(share * count + 1e-9)


def joint_task(categories: Sequence[str], present: Sequence[str] = ()) -> str:
    """Return the name of the task of several categories at once."""
    is_complete = not present or set(categories) == set(present)
    return ALL if is_complete and len(categories) > 1 and ALL not in categories else JOINED_BY.join(categories)


def categories_of(task: str, index: Index) -> tuple[str, ...]:
    """Return the categories of a task that :func:`joint_task` named, in its order."""
    if task in index.categories:
        return (task,)
    found = index.categories if task == ALL else tuple(task.split(JOINED_BY))
    if unknown := [c for c in found if c not in index.categories]:
        raise BadConfig(f"there is no category {unknown[0]!r}. There are: {', '.join(index.categories)}.")
    return found
