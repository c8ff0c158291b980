"""Repeatability: the same parts, imaged many times, and how often the verdict on one of them changes.

Each part gets the share of its images that are not called good, and by it a class as in the test of Knapp and Kushner
("Improved methodology for evaluation of particle inspection procedures", Journal of Parenteral Science and Technology
34, 1980): below 0.3 it is in the accept zone, from 0.7 on in the reject zone, and between them in the grey zone, where
a verdict is chance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from iadbe.errors import BadConfig
from iadbe.running.inference import ImageResult
from iadbe.runtime.parts import named_by
from iadbe.runtime.verdict import GOOD

ACCEPT, GREY, REJECT = "accept", "grey", "reject"
GREY_FROM, REJECT_FROM = 0.3, 0.7


@dataclass(frozen=True)
class RepeatedPart:
    """One part and its images."""

    name: str
    count: int
    mean: float  # of the scores
    deviation: float  # standard deviation of the scores
    lowest: float
    highest: float
    found: float  # share of the images that are not called good

    @property
    def zone(self) -> str:
        """``accept``, ``grey`` or ``reject``."""
        return ACCEPT if self.found < GREY_FROM else REJECT if self.found >= REJECT_FROM else GREY

    @property
    def flips(self) -> bool:
        """Whether its images have different verdicts."""
        return 0 < self.found < 1


@dataclass(frozen=True)
class Repeatability:
    """All parts."""

    parts: tuple[RepeatedPart, ...]

    @property
    def deviation(self) -> float:
        """The standard deviation of a score when the same part is imaged again: pooled over the parts."""
        weights = [part.count - 1 for part in self.parts]
        return math.sqrt(sum(w * p.deviation**2 for w, p in zip(weights, self.parts, strict=True)) / sum(weights))

    @property
    def flips(self) -> int:
        """How many parts have images with different verdicts."""
        return sum(part.flips for part in self.parts)

    def zone(self, name: str) -> int:
        """Return how many parts are in a zone."""
        return sum(part.zone == name for part in self.parts)


def repeatability_of(results: Sequence[ImageResult], rule: str) -> Repeatability:
    """Group images of the same parts by a rule on their paths (:mod:`iadbe.files.groups`).

    Raises :class:`BadConfig` where no part has several images.
    """
    parts: dict[str, list[ImageResult]] = {}
    for result, name in zip(results, named_by([r.path for r in results], rule, "part"), strict=True):
        parts.setdefault(name or result.path.as_posix(), []).append(result)
    found = []
    for name, some in sorted(parts.items()):
        scores = [r.score for r in some]
        if len(some) > 1:
            share = fmean(r.verdict != GOOD for r in some)
            spread = math.sqrt(variance(scores))
            found.append(RepeatedPart(name, len(some), fmean(scores), spread, min(scores), max(scores), share))
    if not found:
        raise BadConfig(f"no part has several images by the rule {rule!r}: repeatability cannot be measured.")
    return Repeatability(tuple(found))
