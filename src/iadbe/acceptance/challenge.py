"""The challenge set: labelled images that the model has neither learnt nor been calibrated on, and its verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import CategoryScores, Interval, auroc, category_scores
from iadbe.evaluation.conformal import Rate, clopper_pearson
from iadbe.evaluation.intervals import auroc_interval
from iadbe.running.inference import ImageResult
from iadbe.runtime.verdict import GOOD, REJECT


@dataclass(frozen=True)
class Kind:
    """The defective images of one kind."""

    name: str
    count: int
    passed: int  # called good
    lowest: ImageResult  # without its map


@dataclass(frozen=True)
class Challenge:
    """Verdicts on good and defective images."""

    good: tuple[ImageResult, ...]  # the highest score first, without maps
    bad: tuple[ImageResult, ...]  # the lowest score first
    kinds: tuple[Kind, ...]

    @property
    def overkill(self) -> Rate:
        """The share of good images that are rejected."""
        return clopper_pearson(sum(r.verdict == REJECT for r in self.good), len(self.good))

    @property
    def look(self) -> Rate:
        """The share of good images that are not called good: to be looked at, or rejected."""
        return clopper_pearson(sum(r.verdict != GOOD for r in self.good), len(self.good))

    @property
    def escape(self) -> Rate:
        """The share of defective images that are called good."""
        return clopper_pearson(sum(r.verdict == GOOD for r in self.bad), len(self.bad))

    @property
    def auroc(self) -> float:
        """The image AUROC."""
        return auroc(self.scores)

    @property
    def auroc_interval(self) -> Interval | None:
        """Its 95 % interval."""
        return auroc_interval([self.scores])

    @property
    def scores(self) -> CategoryScores:
        """The scores, as the metrics take them."""
        every = [(r, False) for r in self.good] + [(r, True) for r in self.bad]
        return category_scores((r.path.as_posix(), is_bad, [r.score]) for r, is_bad in every)


def challenge_of(good: Sequence[ImageResult], bad: Iterable[tuple[str, ImageResult]]) -> Challenge:
    """Return the result on good images, and on defective ones with their kinds.

    Raises :class:`BadConfig` where one of both is missing.
    """
    kinds: dict[str, list[ImageResult]] = {}
    for name, result in bad:
        kinds.setdefault(name, []).append(result)
    every = [result for results in kinds.values() for result in results]
    if not good or not every:
        missing = "good" if not good else "defective"
        raise BadConfig(f"a challenge set has good and defective images, and there is no {missing} one.")
    found = tuple(
        Kind(name, len(some), sum(r.verdict == GOOD for r in some), min(some, key=lambda r: r.score))
        for name, some in sorted(kinds.items())
    )
    return Challenge(
        tuple(sorted(good, key=lambda r: -r.score)), tuple(sorted(every, key=lambda r: r.score)), found
    )  # fmt: skip
