"""Scores of the images that a fitted detector is calibrated on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from iadbe import environment, system
from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import GROUPS, PARTS, Calibration, ImageScores, ThresholdRule
from iadbe.evaluation.conformal import clopper_pearson
from iadbe.evaluation.part_calibration import calibrate_combination
from iadbe.files.input_images import InputImage, inputs_of
from iadbe.monitoring import reference
from iadbe.running import model_folder
from iadbe.running.inference import ImageResult, results_of
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime import zones as zone_files
from iadbe.runtime.parts import MAXIMUM, Part, ViewScore, check_combination, named_by, parts_of
from iadbe.runtime.regions import RegionRule, region_score
from iadbe.runtime.verdict import GOOD
from iadbe.runtime.zones import Zone


@dataclass(frozen=True, slots=True)
class Grouping:
    """Which images count as one, by rules on their paths (:mod:`iadbe.files.groups`); empty: each counts."""

    group: str = ""
    part: str = ""  # the same of the images of one part
    view: str = ""  # which view of a part an image is
    combine: str = MAXIMUM  # how the images of a part become one score

    def __post_init__(self) -> None:
        check_combination(self.combine)
        if self.group and self.part:
            raise BadConfig("group and part are the same rule: give one of them.")
        if self.combine != MAXIMUM and not self.part:
            raise BadConfig("images are combined by part: say with part which of them belong together.")


@dataclass(frozen=True, slots=True)
class ScoredSet:
    """The good or the defective images of a calibration."""

    scores: ImageScores  # of images, or of groups of them
    images: tuple[ImageResult, ...]  # those that count, without maps, the highest first
    groups: tuple[str, ...]  # of these images; empty: each is its own
    learnt: int  # how many images were left out because the detector has learnt them

    def parts(self, by: Grouping) -> list[Part]:
        """Return the parts that the images belong to."""
        ordered = sorted(self.images, key=lambda image: image.path.as_posix())
        views = named_by([image.path for image in ordered], by.view, "view")
        scores = [ViewScore(image.path, image.score, view=name) for image, name in zip(ordered, views, strict=True)]
        return parts_of(scores, by.part, None)


@dataclass(slots=True)
class ScoredSets:
    """Scores sets of images; what is in one is not in another."""

    fitted: FittedDetector
    device: str
    rule: RegionRule | None  # by which verdicts follow from regions
    notes: list[str]  # what was left out and why, appended to
    by: Grouping = field(default_factory=Grouping)
    taken: dict[str, Path] = field(default_factory=dict)  # digests of all images so far -> their paths

    def calibrate(
        self, thresholds: ThresholdRule, good: Sequence[Path], bad: Sequence[Path]
    ) -> tuple[Calibration, tuple[ImageResult, ...]]:
        """Return the calibration from good and defective images, and the good ones, the highest first."""
        goods, bads = self.score(good, "good"), self.score(bad, "defective")
        thresholds.check(len(goods.scores.score), len(bads.scores.score), goods.learnt, goods.scores.unit)
        found = self.with_escape(thresholds.calibrate(goods.scores, bads.scores, self.rule), bads)
        if self.by.combine != MAXIMUM:
            found = calibrate_combination(found, thresholds, goods.parts(self.by), bads.parts(self.by))
        return found, goods.images

    def score(self, paths: Sequence[Path], kind: str) -> ScoredSet:
        """Score one set of images, "good" or "defective" ones.

        Training images, duplicates, unreadable files and images without the part are left out, with a note.
        """
        kept: list[ImageResult] = []
        tops, middles, regions = [], [], []
        own: set[str] = set()
        learnt = twice = lost = 0
        for found in self._results(inputs_of(paths), replace(self.fitted.calibration, rule=None)):
            if found.error:
                self.notes.append(f"{found.error.rstrip('.')}: it is left out.")
            elif found.position_found is False:
                lost += 1
            elif self.fitted.was_trained_on(found.key):
                learnt += 1
            elif found.key in own:
                twice += 1
            elif found.key in self.taken:
                raise BadConfig(f"{found.path} is the same image as {self.taken[found.key]}: is it good or defective?")
            else:
                own.add(found.key)
                self.taken[found.key] = found.path
                if (map_ := found.map) is not None:
                    tops.append(map_.max())
                    middles.append(np.median(map_[::4, ::4]))
                    if self.rule is not None:
                        zones = found.zones_at(self.rule, *found.native)
                        regions.append(region_score(map_, self.rule, zones))
                kept.append(replace(found, view_map=None))
        for count, why in (
            (learnt, "the detector has learnt them"),
            (twice, "they are there twice"),
            (lost, "the position of the part was not found"),
        ):
            if count:
                self.notes.append(f"{count} of {len(paths)} {kind} images are left out: {why}.")
        score = np.array([f.score for f in kept], np.float32)
        maps = (np.array(tops, np.float32), np.array(middles, np.float32)) if tops else (None, None)
        scores = ImageScores(score, *maps)
        if self.rule is not None:
            scores = scores._replace(regions=np.array(regions, np.float32))
        order = np.argsort(-scores.deciding, kind="stable")
        groups = named_by(
            [one.path for one in kept], self.by.part or self.by.group, "part" if self.by.part else "group"
        )
        if self.by.part or self.by.group:
            scores = scores.by_group(groups, PARTS if self.by.part else GROUPS)
        return ScoredSet(scores, tuple(kept[i] for i in order), tuple(groups[i] for i in order), learnt)

    def with_escape(self, found: Calibration, bad: ScoredSet) -> Calibration:
        """Return a calibration with the escape counted from verdicts on the defective images.

        Where some regions are tolerated, no single value of an image says whether it passes: regions may grow together.
        """
        if self.rule is None or not self.rule.max_count or not bad.images:
            return found
        passes: dict[str, bool] = {}
        results = self._results([image.source for image in bad.images if image.source is not None], found)
        for number, (result, group) in enumerate(zip(results, bad.groups, strict=True)):
            name = f"group {group}" if group else f"image {number}"
            passes[name] = passes.get(name, True) and result.verdict == GOOD
        return replace(found, escape=clopper_pearson(sum(passes.values()), len(passes)))

    def _results(self, images: Sequence[InputImage], calibration: Calibration) -> Iterator[ImageResult]:
        fitted = replace(self.fitted, calibration=calibration)
        return results_of(fitted, images, None, environment.device(self.device), measure=True)


def keep(folder: Path, calibration: Calibration, good: Sequence[ImageResult]) -> None:
    """Keep a calibration in a model's folder, and what its good images were like, for drift."""
    model_folder.save_calibration(folder, calibration)
    reference.write(folder, reference.reference_of([image.channels for image in good]))


def region_rule(
    fitted: FittedDetector,
    images: Sequence[Path],
    min_area: int,
    max_count: int,
    zones: str | Path,
    thresholds: Mapping[str, float] | None,
) -> RegionRule | None:
    """Return the rule for regions that is asked for; None: none is.

    Args:
        fitted: a loaded model
        images: of which the first has the size in which zones are drawn
        min_area: pixels from which a region counts; 0: all count
        max_count: regions that are tolerated
        zones: file of named areas; empty: none
        thresholds: by zone, of the raw map in it
    """
    if not (min_area or max_count or zones):
        if thresholds:
            raise BadConfig("thresholds of zones need a file of zones: give both.")
        return None
    if "localise" not in fitted.detector.can:
        raise BadConfig(f"{fitted.name} does not say where defects are, so there are no regions to make rules for.")
    drawn: tuple[Zone, ...] = ()
    if zones:
        pixels = inputs_of(images[:1])[0].read(fitted.intensity)[0]
        drawn = zone_files.read(system.user_path(zones), (pixels.shape[0], pixels.shape[1]), thresholds)
    return RegionRule(min_area or 1, max_count, drawn)
