"""From what a fitted detector says of known images to a threshold, and what that threshold promises.

Paper: split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; the law
of the true rate given the sample: Vovk, "Conditional validity of inductive conformal predictors", ACML 2012, 1209.2673;
intervals: Clopper and Pearson, Biometrika 26, 1934.
Differs: a part is defective from the threshold on (``>=``), so the threshold is the next float32 above the score of the
paper's quantile: a part that ties with it passes.

All promises are about parts that are made and photographed like the calibration images (exchangeable with them), and
about images that the detector has not learnt. With n of them and a wanted overkill a, the threshold lies just above
the k-th smallest score, k = ceil((n + 1)(1 - a)): the overkill is at most (n + 1 - k) / (n + 1) <= a on average over
such samples, and for one sample it is distributed as Beta(n + 1 - k, k), or below where scores tie.

The scale for people maps a raw score s to 0..1 by d = (s - threshold) / width: 0.5 / (1 - d) below the threshold and
1 - 0.5 / (1 + d) from there on. It rises everywhere, is 0.5 at the threshold, and with the width stored here 0.1 at the
median of the good images (0.9 if that lies above the threshold). It follows from two numbers of the calibration,
never from the images that are scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.special import betaincinv

from iadbe.curves.curve import allowed_count
from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import LEVEL

MEDIAN_SHOWN_AT = 0.1  # where the scale for people shows the median of the good images
MIN_WIDTH = 1e-6  # least width of the scale, relative to the threshold: good scores may all be equal
DEFAULT_OVERKILL = 0.01  # wanted where nothing else is


@dataclass(frozen=True, slots=True)
class Rate:
    """A share of parts, with the ends of its range at 95 % confidence."""

    value: float  # measured; or, where promised, what it is at most on average over such samples
    low: float
    high: float
    promised: bool = False  # by the conformal threshold, so that ``low`` is 0 and ``high`` one-sided

    def text(self, count: int, what: str) -> str:
        """Say it of ``count`` images of a kind ("good")."""
        if self.promised:
            return (
                f"at most {percent(self.value)} on average over such samples of {count} {what} images; "
                f"in this one at most {percent(self.high)} with {percent(LEVEL)} confidence"
            )
        hits, between = round(self.value * count), f"{percent(self.low)} to {percent(self.high)}"
        return f"{hits} of {count} {what} images, {percent(self.value)} ({percent(LEVEL)} interval {between})"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The scale of a fitted detector's scores, fixed once: never per image, never per test set."""

    how: str = ""  # one sentence: from what the numbers below were taken
    threshold: float | None = None  # image score from which a part is defective
    pixel_threshold: float | None = None
    low: float | None = None  # map value shown as 0
    high: float | None = None  # map value shown as 1
    width: float | None = None  # of the scale for people, in units of the score
    good: int = 0  # images that `iadbe calibrate` looked at; 0: the numbers come with training
    bad: int = 0
    overkill: Rate | None = None
    escape: Rate | None = None

    def scaled(self, score: float) -> float | None:
        """Return a raw score on the scale for people, in [0, 1] with 0.5 at the threshold; None: there is no scale."""
        if self.threshold is None or self.width is None:
            return None
        distance = (score - self.threshold) / self.width
        return 0.5 / (1 - distance) if distance < 0 else 1 - 0.5 / (1 + distance)

    def scale(self) -> str:
        """Say how the scale for people is read."""
        usual = self.overkill is not None and self.overkill.value < 0.5  # else the median may be above the threshold
        more = f", {MEDIAN_SHOWN_AT} at a usual good part" if usual else ""
        return f"scale 0 to 1: 0.5 is at {self.threshold:.4g}{more}"

    def promises(self) -> list[str]:
        """Say what is known of overkill and escape, one line each."""
        lines = [f"overkill: {self.overkill.text(self.good, 'good')}"] if self.overkill else []
        return lines + ([f"escape: {self.escape.text(self.bad, 'defective')}"] if self.escape else [])


class ImageScores(NamedTuple):
    """What a detector said of images of one kind."""

    score: np.ndarray  # (N,) float32
    top: np.ndarray | None = None  # (N,) float32, the largest value of each map; None: there are no maps
    middle: np.ndarray | None = None  # (N,) float32, the median of each map


def read(card: Mapping[str, Any]) -> Calibration:
    """Make a calibration of what a model's card says; older cards say less. Raises TypeError for what is none."""
    known = {f.name: card[f.name] for f in fields(Calibration) if f.name in card}
    rates = {name: Rate(**known[name]) for name in ("overkill", "escape") if known.get(name)}
    return Calibration(**{**known, **rates})


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """By what a threshold is chosen: one of ``overkill`` (0.01 where nothing is said), ``escape`` and ``cost``."""

    overkill: float | None = None  # share of good parts that may be rejected: a promise
    escape: float | None = None  # share of the defective images that may escape
    cost: float | None = None  # of a defect that escapes, in rejected good parts
    defects: float | None = None  # share of defective parts in production, for the cost; None: that of the images

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.overkill, self.escape, self.cost)) > 1:
            raise BadConfig("overkill, escape and cost are three ways to choose a threshold: give one of them.")
        if self.overkill is not None and not 0 < self.overkill < 1:
            raise BadConfig(f"overkill is a share above 0 and below 1, such as 0.01, not {self.overkill:g}.")
        if self.escape is not None and not 0 <= self.escape < 1:
            raise BadConfig(f"escape is a share from 0 up to below 1, such as 0.02, not {self.escape:g}.")
        if self.cost is not None and not 0 < self.cost < math.inf:
            raise BadConfig(f"cost is that of an escaped defect in rejected good parts, above 0, not {self.cost:g}.")
        if self.defects is not None and not 0 < self.defects < 1:
            raise BadConfig(f"defects is the share of defective parts, above 0 and below 1, not {self.defects:g}.")
        if self.defects is not None and self.cost is None:
            raise BadConfig("defects, the share of defective parts, belongs to cost: give both.")

    def check(self, good: int, bad: int, learnt: int = 0) -> None:
        """Raise :class:`BadConfig` where so many images are too few; ``learnt`` good ones more cannot be used."""
        more = f" beside {learnt} that it has learnt" if learnt else ""
        if self.escape is not None or self.cost is not None:
            if not bad:
                raise BadConfig("escape and cost take defective images beside good ones: give some as bad.")
            if not good:
                raise BadConfig(f"there is no good image that the detector has not learnt{more}: give some.")
            return
        share = DEFAULT_OVERKILL if self.overkill is None else self.overkill
        if allowed_count(share, good + 1) < 1:
            instead = f", or ask for an overkill of {math.ceil(1e4 / (good + 1)) / 1e4:g}" if good else ""
            there = "there is 1" if good == 1 else f"there are {good}"
            raise BadConfig(
                f"a promise of at most {percent(share)} overkill takes {images_needed(share)} good images that the "
                f"detector has not learnt, and {there}{more}: give more{instead}."
            )

    def calibrate(self, good: ImageScores, bad: ImageScores) -> Calibration:
        """Return the calibration that these images give; ``bad`` may be empty where only good ones are needed."""
        self.check(len(good.score), len(bad.score))
        if self.escape is not None:
            return _by_escape(good, bad, self.escape)
        if self.cost is not None:
            return _by_cost(good, bad, self.cost, self.defects)
        return _by_overkill(good, bad, DEFAULT_OVERKILL if self.overkill is None else self.overkill)


def conformal_threshold(values: np.ndarray, share: float) -> float:
    """Return the least threshold that promises at most ``share`` of new values from it on, on average.

    There are at least :func:`images_needed` values.
    """
    return _above(np.sort(values)[len(values) - allowed_count(share, len(values) + 1)])


def images_needed(share: float) -> int:
    """Return the least number of good images for a promise of this share."""
    return math.ceil(1 / share - 1e-9) - 1


def clopper_pearson(hits: int, count: int, level: float = LEVEL) -> Rate:
    """Return a share with its interval of Clopper and Pearson."""
    rest = (1 - level) / 2
    low = float(betaincinv(hits, count - hits + 1, rest)) if hits else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - rest)) if hits < count else 1.0
    return Rate(hits / count, low, high)


def scale_width(threshold: float, good: np.ndarray) -> float:
    """Return the width with which the scale for people shows the median good score at MEDIAN_SHOWN_AT."""
    distance = abs(threshold - float(np.median(good)))
    return max(distance / (0.5 / MEDIAN_SHOWN_AT - 1), MIN_WIDTH * abs(threshold), 1e-12)


def percent(share: float) -> str:
    """Write a share for people, in three digits."""
    return f"{100 * share:.3g} %"


def _by_overkill(good: ImageScores, bad: ImageScores, share: float) -> Calibration:
    count = len(good.score)
    more = allowed_count(share, count + 1)  # n + 1 - k: of n + 1 images so many may lie above
    rate = Rate(more / (count + 1), 0.0, float(betaincinv(more, count + 1 - more, LEVEL)), promised=True)
    how = f"at most {percent(share)} overkill, promised by {count} good images"
    pixel = None if good.top is None else conformal_threshold(good.top, share)
    return _completed(Calibration(how, conformal_threshold(good.score, share), pixel, overkill=rate), good, bad)


def _by_escape(good: ImageScores, bad: ImageScores, share: float) -> Calibration:
    """Take the highest threshold that few enough of the defective images escape."""
    threshold = float(np.sort(bad.score)[allowed_count(share, len(bad.score))])
    how = f"at most {percent(share)} of {len(bad.score)} defective images escape"
    return _measured(Calibration(how, threshold), good, bad)


def _by_cost(good: ImageScores, bad: ImageScores, cost: float, defects: float | None) -> Calibration:
    """Take the threshold of the least expected cost; of several the lowest, from which least escapes."""
    share = len(bad.score) / (len(bad.score) + len(good.score)) if defects is None else defects
    candidates = np.unique(np.concatenate([good.score, bad.score]))
    candidates = np.append(candidates, np.float32(_above(candidates[-1])))  # from which nothing is rejected
    escape = np.searchsorted(np.sort(bad.score), candidates) / len(bad.score)
    overkill = 1 - np.searchsorted(np.sort(good.score), candidates) / len(good.score)
    costs = share * cost * escape + (1 - share) * overkill
    best = int(np.flatnonzero(costs <= costs.min() * (1 + 1e-12))[0])
    threshold = float(candidates[best])
    if 0 < best < len(candidates) - 1:  # half-way down to the next score
        below = float(candidates[best - 1])
        between = float(np.float32((threshold + below) / 2))
        threshold = between if between > below else threshold
    whose = "as among these images" if defects is None else "in production"
    how = f"least cost: an escape is worth {cost:g} rejected good parts, and {percent(share)} are defective, {whose}"
    return _measured(Calibration(how, threshold), good, bad)


def _above(value: np.floating[Any]) -> float:
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def _measured(found: Calibration, good: ImageScores, bad: ImageScores) -> Calibration:
    """Add what a threshold does to the good images; as many of them may show a pixel as it rejects."""
    count = len(good.score)
    rejected = int((good.score >= found.threshold).sum())
    pixel = None
    if good.top is not None:
        tops = np.sort(good.top)
        pixel = _above(tops[count - rejected - 1]) if rejected < count else float(tops[0])
    return _completed(replace(found, pixel_threshold=pixel, overkill=clopper_pearson(rejected, count)), good, bad)


def _completed(found: Calibration, good: ImageScores, bad: ImageScores) -> Calibration:
    """Add the counts, the escape, and the scales of scores and maps."""
    assert found.threshold is not None
    low = high = None
    if good.middle is not None and good.top is not None and found.pixel_threshold is not None:
        low = float(np.median(good.middle))
        above = found.pixel_threshold - low
        high = low + 2 * above if above > 0 else max(float(good.top.max()), low)  # the pixel threshold is half-way
    count = len(bad.score)
    return replace(
        found,
        low=low,
        high=high,
        width=scale_width(found.threshold, good.score),
        good=len(good.score),
        bad=count,
        escape=clopper_pearson(int((bad.score < found.threshold).sum()), count) if count else None,
    )
