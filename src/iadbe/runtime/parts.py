"""One verdict on a part of which there are several images: views, lights or frames.

By the maximum: the verdict is the worst one of the part's images. By a combination that was calibrated on good parts:
Fisher's method on conformal p-values. The p-value of an image is the share of good reference images of its view that
score at least as high, (1 + #{r >= s}) / (n + 1). The statistic -2 Σ log p of a part with K images has a χ²
distribution with 2 K degrees of freedom if views are independent and references many. The part's score is minus the
logarithm of the probability of at least that statistic. Views of a part do depend on each other, so the threshold is
not that of χ²: it is a conformal threshold of other good parts.

A combination finds what is weak in several views. What is in one view alone is found more surely by the maximum,
because a p-value is never below 1 / (n + 1).

Papers: Fisher, "Statistical Methods for Research Workers", 4th ed., 1932, § 21.1; of conformal p-values and their
dependence: Bates, Candès, Lei, Romano and Sesia, "Testing for outliers with conformal p-values", Annals of Statistics
51, 2023, 2104.08279.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadConfig, BadData
from iadbe.files.groups import groups_of
from iadbe.runtime.verdict import GOOD, LOOK, REJECT, UNKNOWN, verdict_of

MAXIMUM, FISHER = "maximum", "fisher"
COMBINATIONS = (MAXIMUM, FISHER)
WORST_FIRST = (REJECT, UNKNOWN, LOOK, GOOD)  # a part with an image without a verdict is not called good


@dataclass(frozen=True, slots=True)
class ViewScore:
    """What is known of one image of a part."""

    path: Path
    score: float  # raw; nan where the image could not be scored
    scaled: float | None = None
    verdict: str = UNKNOWN
    error: str = ""
    view: str = ""  # which view of a part it is; empty: not said


@dataclass(frozen=True, slots=True)
class Part:
    """The verdict on a part."""

    name: str
    images: tuple[ViewScore, ...]
    score: float  # the highest of its images, or the combined one; nan where there is none
    scaled: float | None  # of the highest image; None with a combination
    threshold: float | None
    verdict: str
    error: str = ""  # why images of it could not be scored

    @property
    def defective(self) -> bool | None:
        """Whether the part is rejected; None without a verdict."""
        return self.verdict == REJECT if self.verdict else None

    @property
    def highest(self) -> ViewScore:
        """The image with the highest score; the first where none has a score."""
        return max(self.images, key=lambda image: -math.inf if math.isnan(image.score) else image.score)


@dataclass(frozen=True, slots=True)
class Combination:
    """Fisher's combination of views, calibrated on good parts."""

    references: Mapping[str, tuple[float, ...]]  # view -> rising scores of good images
    threshold: float  # of the combined score, from which a part is rejected
    look_threshold: float | None = None  # from which it is to be looked at

    def score(self, images: Sequence[ViewScore]) -> float:
        """Return the combined score of a part's images. Raises :class:`BadData` for a view without references."""
        logs = []
        for image in images:
            if image.view not in self.references:
                known = ", ".join(map(repr, self.references))
                raise BadData(f"{image.path} is of the view {image.view!r}, but the model was calibrated on {known}.")
            logs.append(math.log(p_value(image.score, self.references[image.view])))
        return float(np.float32(-_log_chi2(-sum(logs), len(logs))))


def read(card: Mapping[str, Any] | None) -> Combination | None:
    """Return the combination that a card holds. Raises ValueError, TypeError or LookupError for what is none."""
    if card is None:
        return None
    references = {}
    for view, scores in card["references"].items():
        if not isinstance(view, str) or not scores or not all(map(_is_finite, scores)):
            raise ValueError("references of a combination are finite scores by view")
        references[view] = tuple(sorted(map(float, scores)))
    threshold, look = card["threshold"], card.get("look_threshold")
    if not references or not _is_finite(threshold) or not (look is None or _is_finite(look)):
        raise ValueError("thresholds of a combination are finite numbers")
    return Combination(references, threshold, look)


def p_value(score: float, reference: Sequence[float]) -> float:
    """Return the conformal p-value of a score: the share of reference scores, and itself, that are at least as high."""
    above = len(reference) - int(np.searchsorted(reference, score, side="left"))
    return (1 + above) / (1 + len(reference))


def named_by(paths: Sequence[Path], rule: str, option: str) -> list[str]:
    """Return the part, or the view, of each path by a rule of :mod:`iadbe.files.groups`; empty: it has none."""
    texts = [path.as_posix() for path in paths]
    found = groups_of(Path(), rule, texts, option) if rule else {}
    return [found.get(text, "") for text in texts]


def parts_of(
    images: Iterable[ViewScore],
    part: str,
    threshold: float | None,
    combination: Combination | None = None,
) -> list[Part]:
    """Return the parts of some images, in the order of their first images.

    Args:
        images: scored ones
        part: rule on their paths; an image without a part is one by itself
        threshold: image score from which a part is rejected; shown only
        combination: by which images become one score; None: the maximum
    """
    given = list(images)
    members: dict[str, list[ViewScore]] = {}
    for image, name in zip(given, named_by([image.path for image in given], part, "part"), strict=True):
        members.setdefault(name or image.path.as_posix(), []).append(image)
    return [part_of(name, tuple(some), threshold, combination) for name, some in members.items()]


def part_of(name: str, images: tuple[ViewScore, ...], threshold: float | None, combination: Combination | None) -> Part:
    """Return the verdict on one part; for the arguments see :func:`parts_of`."""
    scored = [image for image in images if not image.error]
    failed = [image.error for image in images if image.error]
    error = f"{len(failed)} of {len(images)} images could not be scored: {failed[0]}" if failed else ""
    worst = min((image.verdict for image in images), key=WORST_FIRST.index)
    if combination is None or not scored:
        highest = max(scored, key=lambda image: image.score, default=None)
        score = math.nan if highest is None else highest.score
        return Part(name, images, score, None if highest is None else highest.scaled, threshold, worst, error)
    try:
        score = combination.score(scored)
    except BadData as problem:
        return Part(name, images, math.nan, None, combination.threshold, UNKNOWN, str(problem))
    verdict = verdict_of(score, combination.threshold, combination.look_threshold)
    if verdict != REJECT and any(image.verdict == UNKNOWN for image in images):
        verdict = UNKNOWN
    return Part(name, images, score, None, combination.threshold, verdict, error)


def check_combination(name: str) -> None:
    """Raise :class:`BadConfig` for a combination that there is not."""
    if name not in COMBINATIONS:
        raise BadConfig(f"there is no combination {name!r}. There are: {', '.join(COMBINATIONS)}.")


def _log_chi2(half: float, count: int) -> float:
    """Return log P(X >= 2 ``half``) for X with a χ² distribution with 2 ``count`` degrees of freedom.

    It is exp(-h) Σ_{i < count} h^i / i!, the probability that a Poisson variable of mean h is below count.
    """
    if half <= 0:
        return 0.0
    logs = [i * math.log(half) - math.lgamma(i + 1) for i in range(count)]
    largest = max(logs)
    return min(0.0, -half + largest + math.log(sum(math.exp(value - largest) for value in logs)))


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
