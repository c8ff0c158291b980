"""The calibration of a fitted detector from images that it has not learnt: thresholds, guarantees, display scale.

Words: overkill is the false positive rate, the share of good parts that are rejected. Escape is the false negative
rate, the share of defective parts that pass.

Guarantee: the calibration images and future good parts must be exchangeable, and the detector must not have learnt
them. Thresholds are those of :mod:`iadbe.evaluation.conformal`.

Three verdicts: parts below the look threshold are good, parts from the threshold on are rejected, and parts between
them are to be looked at. Both thresholds have a guarantee as above. That of the look threshold is on all good parts
that are not called good, rejected ones included. An escape is a defective part that is called good.

Dependent images (several of one part, or of one lot) void this if each counts as one. A group counts as one part: its
score is the highest of its images, and n is the number of groups. Then a group is rejected if any of its images is.

Display scale: a raw score s becomes a number in [0, 1] by d = (s - threshold) / width, as 0.5 / (1 - d) below the
threshold and 1 - 0.5 / (1 + d) from there on. It is increasing, is 0.5 at the threshold, and with the width stored here
0.1 at the median of the good images (0.9 if the median lies above the threshold). It depends on two numbers of the
calibration, never on the images that are scored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import numpy as np

from iadbe.curves.curve import allowed_count
from iadbe.errors import BadConfig
from iadbe.evaluation.conformal import (
    Rate,
    above,
    clopper_pearson,
    conformal_threshold,
    guaranteed_rate,
    images_needed,
    percent,
)
from iadbe.runtime import parts, regions
from iadbe.runtime.parts import Combination
from iadbe.runtime.regions import RegionRule

IMAGES = "images"
GROUPS = "image groups"
PARTS = "parts"
MEDIAN_SHOWN_AT = 0.1  # display value of the median good image
MIN_WIDTH = 1e-6  # of the scale, relative to the threshold: good scores may all be equal
DEFAULT_OVERKILL = 0.01  # overkill where no other rule is given


@dataclass(frozen=True, slots=True)
class Calibration:
    """Thresholds and display scale of a fitted detector, fixed once: never per image or per test set."""

    how: str = ""  # one sentence: where the numbers below come from
    threshold: float | None = None  # image score from which a part is defective: rejected
    pixel_threshold: float | None = None
    low: float | None = None  # map value shown as 0
    high: float | None = None  # map value shown as 1
    width: float | None = None  # of the display scale, in units of the score
    good: int = 0  # images that `iadbe calibrate` used; 0: the numbers come from training
    bad: int = 0
    overkill: Rate | None = None
    escape: Rate | None = None
    unit: str = IMAGES  # what ``good`` and ``bad`` count, and the rates are of: images, or groups of dependent ones
    look_threshold: float | None = None  # image score from which a part is to be looked at; None: two verdicts only
    look: Rate | None = None  # of good parts that are to be looked at or rejected
    rule: RegionRule | None = None  # by which the verdict follows from regions of the map; None: from the image score
    look_pixel_threshold: float | None = None  # with a rule: map value from which regions are to be looked at
    combination: Combination | None = None  # of the images of a part into one score; None: the highest counts

    def scaled(self, score: float) -> float | None:
        """Return a raw score on the display scale, in [0, 1] with 0.5 at the threshold; None without a scale."""
        if self.threshold is None or self.width is None:
            return None
        distance = (score - self.threshold) / self.width
        return 0.5 / (1 - distance) if distance < 0 else 1 - 0.5 / (1 + distance)

    def scale(self) -> str:
        """Return how to read the display scale."""
        is_below = self.overkill is not None and self.overkill.value < 0.5  # else the median may be above the threshold
        more = f", {MEDIAN_SHOWN_AT} at the median good part" if is_below else ""
        return f"scale 0 to 1: 0.5 is at {self.threshold:.4g}{more}"

    def guarantees(self) -> list[str]:
        """Return what is known of overkill and escape, one line each."""
        lines = [f"overkill: {self.overkill.text(self.good, 'good', self.unit)}"] if self.overkill else []
        if self.look:
            lines += [f"good parts to look at, or rejected: {self.look.text(self.good, 'good', self.unit)}"]
        return lines + ([f"escape: {self.escape.text(self.bad, 'defective', self.unit)}"] if self.escape else [])

    def thresholds(self) -> list[str]:
        """Return the thresholds with what they were chosen for and what is known of them, one line each."""
        if (views := self.combination) is not None:
            look = "" if views.look_threshold is None else f"; look at it from {views.look_threshold:.4g} on"
            lines = [f"threshold {views.threshold:.4g} of a part's combined score: {self.how}{look}"]
            lines += [*(f"  {line}" for line in self.guarantees())]
            return [*lines, f"threshold {self.threshold:.4g} of an image alone, without a guarantee of its own"]
        lines = [f"threshold {self.threshold:.4g}: {self.how}"]
        if self.rule is not None and self.pixel_threshold is not None:
            wider = self.look_pixel_threshold
            look = "" if wider is None else f"; look at it with such from {wider:.4g} on"
            lines += [f"  reject with {self.rule} from a map value of {self.pixel_threshold:.4g} on{look}"]
        elif self.look_threshold is not None:
            lines += [f"  look at it from {self.look_threshold:.4g} on; reject from {self.threshold:.4g} on"]
        return [*lines, *(f"  {line}" for line in self.guarantees())]


class ImageScores(NamedTuple):
    """A detector's scores of good or of defective images."""

    score: np.ndarray  # (N,) float32
    top: np.ndarray | None = None  # (N,) float32, the maximum of each map; None without maps
    middle: np.ndarray | None = None  # (N,) float32, the median of each map
    regions: np.ndarray | None = None  # (N,) float32, :func:`iadbe.runtime.regions.region_score` of each; None: no rule
    unit: str = IMAGES

    @property
    def deciding(self) -> np.ndarray:
        """The values that a verdict follows from, (N,): of regions where there is a rule for them, else the scores."""
        return self.score if self.regions is None else self.regions

    def by_group(self, groups: Sequence[str], unit: str = GROUPS) -> ImageScores:
        """Return the scores of groups: the highest of each group's images. ``groups`` (N,); an empty one is its own."""
        names = [f"group {g}" if g else f"image {i}" for i, g in enumerate(groups)]
        order = {name: number for number, name in enumerate(dict.fromkeys(names))}
        number = np.array([order[name] for name in names], dtype=int)

        def highest(values: np.ndarray | None) -> np.ndarray | None:
            if values is None:
                return None
            found = np.full(len(order), -np.inf, np.float32)
            np.maximum.at(found, number, values)
            return found

        score = highest(self.score)
        assert score is not None
        return ImageScores(score, highest(self.top), highest(self.middle), highest(self.regions), unit)


def read(card: Mapping[str, Any]) -> Calibration:
    """Read the calibration of a model's card; fields that an older card lacks have defaults.

    Raises TypeError, ValueError or LookupError for a damaged one.
    """
    known = {f.name: card[f.name] for f in fields(Calibration) if f.name in card}
    old = {"promised": "guaranteed"}  # names of earlier versions
    rates = {
        name: Rate(**{old.get(key, key): value for key, value in known[name].items()})
        for name in ("overkill", "escape", "look")
        if known.get(name)
    }
    return Calibration(
        **{
            **known,
            **rates,
            "rule": regions.read(known.get("rule")),
            "combination": parts.read(known.get("combination")),
        }
    )


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """How thresholds are chosen: by one of ``overkill`` (the default, 0.01), ``escape`` and ``cost``.

    ``look`` adds a second, lower threshold to the one by ``overkill``.
    """

    overkill: float | None = None  # allowed false positive rate: a guarantee
    escape: float | None = None  # allowed false negative rate on the images given
    cost: float | None = None  # of an escaped defect, in rejected good parts
    defects: float | None = None  # share of defective parts in production, for the cost; None: that of the images
    look: float | None = None  # allowed share of good parts that are not called good: above ``overkill``
    confidence: float | None = None  # of the guarantees, such as 0.95; None: they hold on average over calibrations

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
        if self.look is not None and not 0 < self.look < 1:
            raise BadConfig(f"look is a share above 0 and below 1, such as 0.05, not {self.look:g}.")
        if self.confidence is not None and not 0 < self.confidence < 1:
            raise BadConfig(f"confidence is above 0 and below 1, such as 0.95, not {self.confidence:g}.")
        if (self.escape is not None or self.cost is not None) and (self.look, self.confidence) != (None, None):
            raise BadConfig("look and confidence belong to overkill, not to escape or cost.")
        if self.look is not None and self.look <= self.share:
            raise BadConfig(
                f"look is the larger share: {self.look:g} is not above {self.share:g}, the share that is rejected."
            )

    @property
    def share(self) -> float:
        """The allowed overkill."""
        return DEFAULT_OVERKILL if self.overkill is None else self.overkill

    def check(self, good: int, bad: int, learnt: int = 0, unit: str = IMAGES) -> None:
        """Raise :class:`BadConfig` for too few images; ``learnt`` is the number of good ones that cannot be used.

        ``unit`` is what is counted: images, or groups of them.
        """
        more = f" beside {learnt} that it has learnt" if learnt else ""
        if self.escape is not None or self.cost is not None:
            if not bad:
                raise BadConfig("escape and cost need defective images, too: give some as bad.")
            if not good:
                raise BadConfig(f"there is no good image that the detector has not learnt{more}: give some.")
            return
        needed = images_needed(self.share, self.confidence)
        if good < needed:
            there = "there is 1" if good == 1 else f"there are {good}"
            raise BadConfig(
                f"a guarantee of at most {percent(self.share)} overkill{_with(self.confidence)} takes {needed} good "
                f"{unit} that the detector has not learnt, and {there}{more}: give more{self._instead(good, needed)}."
            )

    def check_regions(self, rule: RegionRule | None) -> None:
        """Raise :class:`BadConfig` for a rule for regions where thresholds are not chosen by overkill."""
        if rule is not None and (self.escape is not None or self.cost is not None):
            raise BadConfig("rules for regions belong to overkill, not to escape or cost.")

    def _instead(self, good: int, needed: int) -> str:
        """Return what ``good`` images could guarantee instead, for a sentence."""
        if not good:
            return ""
        least = 1 / (good + 1) if self.confidence is None else 1 - (1 - self.confidence) ** (1 / good)
        average = images_needed(self.share)
        without = f"; without a confidence, on average, it takes {average}" if average < needed else ""
        return f", or ask for an overkill of {math.ceil(1e4 * least) / 1e4:g}{_with(self.confidence)}{without}"

    def calibrate(self, good: ImageScores, bad: ImageScores, rule: RegionRule | None = None) -> Calibration:
        """Return the calibration from these images; ``bad`` may be empty for a rule by overkill.

        With a ``rule`` for regions the images have values by it, and verdicts follow from these.
        """
        self.check(len(good.score), len(bad.score), unit=good.unit)
        self.check_regions(rule)
        if self.escape is not None:
            return _by_escape(good, bad, self.escape)
        if self.cost is not None:
            return _by_cost(good, bad, self.cost, self.defects)
        return _by_overkill(good, bad, self, rule)


def scale_width(threshold: float, good: np.ndarray) -> float:
    """Return the width at which the display scale shows the median good score as MEDIAN_SHOWN_AT."""
    distance = abs(threshold - float(np.median(good)))
    return max(distance / (0.5 / MEDIAN_SHOWN_AT - 1), MIN_WIDTH * abs(threshold), 1e-12)


def _by_overkill(good: ImageScores, bad: ImageScores, by: ThresholdRule, rule: RegionRule | None) -> Calibration:
    count, share, confidence = len(good.score), by.share, by.confidence
    how = f"at most {percent(share)} overkill{_with(confidence)}, guaranteed by {count} good {good.unit}"
    marked = good.top if rule is None else good.regions
    pixel = None if marked is None else conformal_threshold(marked, share, confidence)
    threshold = conformal_threshold(good.score, share, confidence)
    found = Calibration(how, threshold, pixel, overkill=guaranteed_rate(share, count, confidence), rule=rule)
    if by.look is not None:
        look = conformal_threshold(good.score, by.look, confidence)
        found = replace(found, look_threshold=look, look=guaranteed_rate(by.look, count, confidence))
        if rule is not None and marked is not None:
            found = replace(found, look_pixel_threshold=conformal_threshold(marked, by.look, confidence))
    if rule is not None:
        _check_rule(found, rule)
    return _with_scales(found, good, bad)


def _check_rule(found: Calibration, rule: RegionRule) -> None:
    """Raise :class:`BadConfig` where no threshold of pixels does what is wanted."""
    for threshold in (found.pixel_threshold, found.look_pixel_threshold):
        if threshold is not None and threshold == math.inf:
            raise BadConfig(
                "the zones' own thresholds alone reject more of the good images than are allowed: give higher ones."
            )
        if threshold is not None and threshold <= float(np.finfo(np.float32).min):
            raise BadConfig(f"too few good images show {rule} at any threshold: ask for smaller or fewer regions.")


def _by_escape(good: ImageScores, bad: ImageScores, share: float) -> Calibration:
    """Take the highest threshold at which few enough of the defective images escape."""
    threshold = float(np.sort(bad.score)[allowed_count(share, len(bad.score))])
    how = f"at most {percent(share)} of {len(bad.score)} defective {bad.unit} escape"
    return _measured(Calibration(how, threshold), good, bad)


def _by_cost(good: ImageScores, bad: ImageScores, cost: float, defects: float | None) -> Calibration:
    """Take the threshold of the lowest expected cost; of several the lowest, with the lowest escape."""
    share = len(bad.score) / (len(bad.score) + len(good.score)) if defects is None else defects
    candidates = np.unique(np.concatenate([good.score, bad.score]))
    candidates = np.append(candidates, np.float32(above(candidates[-1])))  # rejects nothing
    escape = np.searchsorted(np.sort(bad.score), candidates) / len(bad.score)
    overkill = 1 - np.searchsorted(np.sort(good.score), candidates) / len(good.score)
    costs = share * cost * escape + (1 - share) * overkill
    best = int(np.flatnonzero(costs <= costs.min() * (1 + 1e-12))[0])
    threshold = float(candidates[best])
    if 0 < best < len(candidates) - 1:  # in the middle between two scores
        below = float(candidates[best - 1])
        between = float(np.float32((threshold + below) / 2))
        threshold = between if between > below else threshold
    source = "as among these images" if defects is None else "in production"
    how = f"least cost: an escape is worth {cost:g} rejected good parts, and {percent(share)} are defective, {source}"
    return _measured(Calibration(how, threshold), good, bad)


def _with(confidence: float | None) -> str:
    return "" if confidence is None else f" with {percent(confidence)} confidence"


def _measured(found: Calibration, good: ImageScores, bad: ImageScores) -> Calibration:
    """Add the measured overkill; the pixel threshold flags as many good images as the image threshold."""
    count = len(good.score)
    rejected = int((good.score >= found.threshold).sum())
    pixel = None
    if good.top is not None:
        tops = np.sort(good.top)
        pixel = above(tops[count - rejected - 1]) if rejected < count else float(tops[0])
    return _with_scales(replace(found, pixel_threshold=pixel, overkill=clopper_pearson(rejected, count)), good, bad)


def _with_scales(found: Calibration, good: ImageScores, bad: ImageScores) -> Calibration:
    """Add the counts, the escape, and the display scales of scores and maps."""
    assert found.threshold is not None
    low = high = None
    if good.middle is not None and good.top is not None and found.pixel_threshold is not None:
        low = float(np.median(good.middle))
        above = found.pixel_threshold - low
        high = low + 2 * above if above > 0 else max(float(good.top.max()), low)  # the pixel threshold is in the middle
    count = len(bad.score)
    if found.rule is None:
        good_below = found.threshold if found.look_threshold is None else found.look_threshold
    else:
        pixel = found.pixel_threshold if found.look_pixel_threshold is None else found.look_pixel_threshold
        assert pixel is not None
        good_below = pixel
    return replace(
        found,
        low=low,
        high=high,
        width=scale_width(found.threshold, good.score),
        good=len(good.score),
        unit=good.unit,
        bad=count,
        escape=clopper_pearson(int((bad.deciding < good_below).sum()), count) if count else None,
    )
