"""The kept images of several runs side by side: input, ground truth, each detector's heat map and verdict."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from iadbe.errors import IadbeError
from iadbe.files.image_io import read_rgb
from iadbe.files.mask_io import read_mask
from iadbe.report import colormap, thresholds
from iadbe.report.embedded import embedded
from iadbe.results.comparison import Comparison
from iadbe.results.entry import Entry, last_scores
from iadbe.running.store import Store, images_index
from iadbe.types import UNLABELLED, RunResult


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One detector's heat map of one image."""

    detector: str
    score: float
    heat: str  # data URI; empty without a map
    verdict: str  # "caught", "missed", "false alarm", "passed"; empty without a threshold

    @property
    def text(self) -> str:
        """The score in four digits."""
        return f"{self.score:.4g}" if abs(self.score) < 1e4 else f"{self.score:.0f}"


@dataclass(frozen=True, slots=True)
class ImageRow:
    """One test image with all detectors' heat maps."""

    sample: str
    defect: str
    image: str  # data URI
    truth: str  # data URI of the image with the defect outlined; empty without a mask
    heat_maps: tuple[HeatMap | None, ...]  # in the order of the detectors; None: not kept by that run


@dataclass(frozen=True, slots=True)
class CategoryImages:
    """The images of one category."""

    category: str
    detectors: tuple[str, ...]
    rows: tuple[ImageRow, ...]

    @property
    def has_truth(self) -> bool:
        """Return whether any defect is outlined."""
        return any(e.truth for e in self.rows)

    def has_heat(self, position: int) -> bool:
        """Return whether the detector at ``position`` gives maps here."""
        return any(heat_map.heat for e in self.rows if (heat_map := e.heat_maps[position]) is not None)


class _StoredImage(NamedTuple):
    """An image kept by a run."""

    folder: Path
    run: RunResult
    about: Mapping[str, Any]


def category_images(
    store: Store, comparison: Comparison, entries: Sequence[Entry], count: int = 6
) -> list[CategoryImages]:
    """Return the kept images by category: up to ``count`` of each, every kind of defect in turn.

    ``entries`` are the detectors in the order of the columns; the first seed of each is shown.
    """
    kept: dict[str, dict[str, dict[str, _StoredImage]]] = {}  # category, sample, detector
    for entry in entries:
        for run in sorted(entry.runs, key=lambda r: -r.spec.seed):  # the first seed comes last and stays
            for about, folder in _stored_images(store, run):
                tests = {s.test for s in run.scores if s.sample == about["sample"]} or {about["category"]}
                for test in tests:
                    samples = kept.setdefault(entry.category(run, test), {})
                    samples.setdefault(about["sample"], {})[entry.name] = _StoredImage(folder, run, about)
    names = tuple(e.name for e in entries)
    found = []
    for category, samples in sorted(kept.items()):
        rows = [_image_row(samples[s], names) for s in _selected_samples(samples, count)]
        found.append(CategoryImages(category, names, tuple(rows)))
    return found


def threshold(run: RunResult, test: str) -> float | None:
    """Return the threshold with the best F1 on a run's own test, or None where a class is missing."""
    scores = [s for s in last_scores(run) if s.test == test]
    return best_threshold(np.array([s.defect != "good" for s in scores], bool), np.array([s.score for s in scores]))


def best_threshold(truth: np.ndarray, score: np.ndarray) -> float | None:
    """Return the threshold with the best F1, in the middle between two scores, or None where a class is missing."""
    if not truth.any() or truth.all():
        return None
    candidates = np.unique(score[truth])
    caught = truth.sum() - np.searchsorted(np.sort(score[truth]), candidates)
    flagged = len(score) - np.searchsorted(np.sort(score), candidates)
    best = candidates[int(np.argmax(2 * caught / (flagged + truth.sum())))]
    below = score[score < best]
    return float((best + below.max()) / 2) if below.size else float(best)


def verdict(is_defect: bool, score: float, at: float | None) -> str:
    """Return the verdict of the threshold ``at`` on a score: caught, missed, false alarm or passed."""
    if at is None:
        return ""
    if is_defect:
        return "caught" if score >= at else "missed"
    return "false alarm" if score >= at else "passed"


def _stored_images(store: Store, run: RunResult) -> list[tuple[dict[str, Any], Path]]:
    """Return the entries of a run's image index; empty where it is missing or damaged."""
    file = images_index(store.path(run.spec))
    try:
        listed = json.loads(file.read_text(encoding="utf-8"))
        return [(a, file.parent) for a in listed if {"n", "sample", "category", "defect", "score"} <= a.keys()]
    except (OSError, ValueError, TypeError, AttributeError):
        return []


def _selected_samples(samples: Mapping[str, Mapping[str, _StoredImage]], count: int) -> list[str]:
    """Choose samples: those that most detectors kept, one of each defect type in turn, good ones last."""
    kinds: dict[str, list[str]] = {}
    for name, by_detector in sorted(samples.items(), key=lambda item: (-len(item[1]), item[0])):
        kinds.setdefault(next(iter(by_detector.values())).about["defect"], []).append(name)
    ordered = sorted(kinds, key=lambda kind: (kind == "good", kind))
    turns = [name for turn in zip_longest(*(kinds[k] for k in ordered)) for name in turn if name is not None]
    chosen = turns[:count]
    if "good" in kinds and count > 1 and not set(chosen) & set(kinds["good"]):
        chosen[-1] = kinds["good"][0]  # at least one good image for comparison
    position = {name: (ordered.index(kind), name) for kind, names in kinds.items() for name in names}
    return sorted(chosen, key=lambda name: position[name])


def _image_row(by_detector: Mapping[str, _StoredImage], names: Sequence[str]) -> ImageRow:
    heat_maps = tuple(_heat_map(name, by_detector[name]) if name in by_detector else None for name in names)
    first = next(by_detector[n] for n in names if n in by_detector)
    image = truth = ""
    for kept in (by_detector[n] for n in names if n in by_detector):
        shown = _read(kept, "input.jpg")
        image = image or ("" if shown is None else embedded(shown))
        mask = _mask(kept) if shown is not None and not truth else None
        if shown is not None and mask is not None:
            truth = embedded(colormap.outline(shown, mask, width=max(1, shown.shape[1] // 100)))
    return ImageRow(str(first.about["sample"]), str(first.about["defect"]), image, truth, heat_maps)


def _heat_map(name: str, kept: _StoredImage) -> HeatMap:
    sample, score, defect = kept.about["sample"], float(kept.about["score"]), kept.about["defect"]
    tests = [s.test for s in last_scores(kept.run) if s.sample == sample]
    at = threshold(kept.run, tests[0]) if tests else None
    if (own := thresholds.calibration_of(kept.folder.parent)) is not None:
        at = own.threshold
    shown, warm = _read(kept, "input.jpg"), _read(kept, "map.png") if kept.about.get("map") else None
    uri = ""
    if shown is not None and warm is not None:
        drawn, region = colormap.overlay(shown, warm[:, :, 0]), _mask(kept, "region")
        uri = embedded(drawn if region is None else colormap.greyed(drawn, region))
    return HeatMap(name, score, uri, "" if defect == UNLABELLED else verdict(defect != "good", score, at))


def _read(kept: _StoredImage, what: str) -> np.ndarray | None:
    try:
        return read_rgb(kept.folder / f"{kept.about['n']:02d}_{what}")
    except (IadbeError, ValueError):
        return None


def _mask(kept: _StoredImage, what: str = "mask") -> np.ndarray | None:
    if not kept.about.get(what):
        return None
    try:
        return read_mask(kept.folder / f"{kept.about['n']:02d}_{what}.png")
    except (IadbeError, ValueError):
        return None
