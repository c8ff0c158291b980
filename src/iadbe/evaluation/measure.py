"""From scores and ground truth to the rows of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from iadbe.curves.curve import EIGHT_NEIGHBOURS, Curve, DefectRegion
from iadbe.data.images import Images, View, mask_coverage
from iadbe.dataset import Index
from iadbe.evaluation.native import NativeTruth, left_out_notes
from iadbe.metric import NEAREST, Metric, parse
from iadbe.types import Sample, Step

HELD_OUT = "held_out"
PARTS = "parts"
GOOD = "good"
NAN = float("nan")
LOST_SHARE = 0.05  # of the defect regions; from here on a note says how many have no pixel in the view
TOUCHED = "rows with the mask rule touched, as pixel_auroc.touched, count every pixel that a defect touches"


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """Raw scores and maps of the test images: not normalised, clamped or rounded.

    ``held_out`` and ``held_out_map`` are scores and maps of good images that were neither learnt nor tested: the only
    ones on which a metric may choose a threshold.
    """

    score: np.ndarray  # (N,) float32
    map: np.ndarray | None = None  # (N, H, W) float32
    held_out: np.ndarray | None = None  # (M,) float32
    held_out_map: np.ndarray | None = None  # (M, H, W) float32


class GroundTruth(NamedTuple):
    """The masks of test images in the view, under one mask rule."""

    masks: np.ndarray  # (M, H, W) bool, of the images that are known
    known: np.ndarray  # (N,) bool: the image is good, or has a mask with a defect pixel in the view
    notes: tuple[str, ...] = ()
    region: np.ndarray | None = None  # (M, H, W) bool: which pixels count; None: all


def measure(
    output: DetectorOutput,
    images: Images,
    metrics: Sequence[str],
    pixel_curves: list[Curve] | None = None,
    held_out: Images | None = None,
    *,
    native: bool = False,
) -> tuple[dict[str, float], list[str]]:
    """Return (value by row name, notes for readers of the values).

    Args:
        output: of the detector, in the view
        images: the tested ones, in the order of the output
        metrics: names of rows
        pixel_curves: the pixel curve under the rule ``nearest`` is appended
        held_out: the held-out images of the output, if it has any
        native: pixel metrics at the images' own sizes, where all mask rules are one
    """
    wanted = {name: parse(name) for name in metrics}
    rows, notes = _image_rows(output, images, {n: m for n, (level, m) in wanted.items() if level == "image"})
    notes = [*_missing_held_out(output, wanted), *notes]
    pixel = {name: metric for name, (level, metric) in wanted.items() if level == "pixel"}
    if not pixel:
        return rows, notes
    if output.map is None:
        return rows, [*notes, "the detector does not localise, so there are no pixel metrics."]
    apart = None if output.held_out_map is None or held_out is None else (output.held_out_map, held_out)
    found: dict[str, float] = {}
    for rule in (NEAREST,) if native else tuple(dict.fromkeys(metric.mask for metric in pixel.values())):
        chosen = {name: metric for name, metric in pixel.items() if native or metric.mask == rule}
        pixels = _NativePixels(output.map, images, apart) if native else _ViewPixels(output, images, apart, rule)
        notes += [n for n in pixels.truth.notes if n not in notes]
        if not pixels.has_defects:
            if rule == NEAREST and not pixels.truth.notes:
                notes.append("there are no masks, so there are no pixel metrics.")
            continue
        values, more = _pixel_rows(pixels, chosen, pixel_curves if rule == NEAREST else None)
        found |= values
        notes += more
    return rows | {name: found[name] for name in pixel if name in found}, notes


def _image_rows(
    output: DetectorOutput, images: Images, metrics: Mapping[str, Metric]
) -> tuple[dict[str, float], list[str]]:
    truth = np.array([e.sample.is_anomaly for e in images.items], bool)
    curve = Curve(truth, output.score, output.held_out)

    def of(chosen: np.ndarray) -> Curve:
        return Curve(truth[chosen], output.score[chosen], output.held_out)

    return _values(curve, of, [e.sample.defect for e in images.items], metrics)


class _ViewPixels:
    """Masks and maps in the view, under one mask rule."""

    def __init__(
        self, output: DetectorOutput, images: Images, held_out: tuple[np.ndarray, Images] | None, rule: str
    ) -> None:
        assert output.map is not None
        self.images, self.truth = images, ground_truth(images, rule)
        self.maps = output.map if self.truth.known.all() else output.map[self.truth.known]
        region = None if held_out is None else held_out[1].regions()
        self.held_out = output.held_out_map if held_out is None or region is None else held_out[0][region]

    @property
    def has_defects(self) -> bool:
        return bool(self.truth.masks.any())

    def parts(self) -> list[DefectRegion]:
        return defect_regions(self.images, self.truth)

    def curve(self, chosen: np.ndarray | None, parts: list[DefectRegion] | None) -> Curve:
        masks, _, _, region = self.truth
        if chosen is None:
            return Curve(masks, self.maps, self.held_out, parts, region)
        return Curve(masks[chosen], self.maps[chosen], self.held_out, parts, None if region is None else region[chosen])


class _NativePixels:
    """Masks and maps at the images' own sizes."""

    def __init__(self, maps: np.ndarray, images: Images, held_out: tuple[np.ndarray, Images] | None) -> None:
        self.images, self.maps, self.held_out = images, maps, held_out
        self.truth = NativeTruth(images)

    @property
    def has_defects(self) -> bool:
        return self.truth.has_defects

    def parts(self) -> list[DefectRegion]:
        return self.truth.parts()

    def curve(self, chosen: np.ndarray | None, parts: list[DefectRegion] | None) -> Curve:
        return self.truth.curve(self.maps, chosen, parts, self.held_out)


def _pixel_rows(
    pixels: _ViewPixels | _NativePixels, metrics: Mapping[str, Metric], pixel_curves: list[Curve] | None
) -> tuple[dict[str, float], list[str]]:
    kept = [e.sample for e, known in zip(pixels.images.items, pixels.truth.known, strict=True) if known]
    parts = pixels.parts() if any(PARTS in m.needs for m in metrics.values()) else None
    curve = pixels.curve(None, parts)
    if pixel_curves is not None:
        pixel_curves.append(curve)

    def of(chosen: np.ndarray) -> Curve:
        place = {int(old): new for new, old in enumerate(np.flatnonzero(chosen))}
        return pixels.curve(chosen, [p._replace(image=place[p.image]) for p in parts or () if p.image in place])

    return _values(curve, of, [s.defect for s in kept], metrics)


def _values(
    curve: Curve, of: Callable[[np.ndarray], Curve], defects: Sequence[str], metrics: Mapping[str, Metric]
) -> tuple[dict[str, float], list[str]]:
    """Return the values of metrics on a curve, or as means over defect types, each with the good images.

    ``of`` gives the curve of chosen images (N,) bool; ``defects`` are the images' defect types.
    """
    values = {name: metric.value(curve) for name, metric in metrics.items() if not metric.by_kind}
    kinds = {name: metric for name, metric in metrics.items() if metric.by_kind}
    if not kinds:
        return values, []
    named = np.array(defects)
    each: dict[str, dict[str, float]] = {name: {} for name in kinds}
    for kind in sorted({*defects} - {GOOD}):
        alone = of((named == kind) | (named == GOOD))
        for name, metric in kinds.items():
            each[name][kind] = metric.value(alone)
    means = {name: float(np.mean([*by_kind.values()])) if by_kind else NAN for name, by_kind in each.items()}
    texts = [f"{name}: {', '.join(f'{k} {v:.3f}' for k, v in by_kind.items())}." for name, by_kind in each.items()]
    return {name: (values | means)[name] for name in metrics}, texts


def needs_held_out(metrics: Sequence[str]) -> bool:
    """Return whether any row needs held-out good images."""
    return any(HELD_OUT in parse(name)[1].needs for name in metrics)


def held_out_samples(step: Step, tested: Sequence[Sample], index: Index) -> tuple[Sample, ...]:
    """Return good images of a test's categories that were neither learnt nor tested.

    These are the images that the setting holds out, else the dataset's validation split.
    """
    categories = {s.category for s in tested}
    seen = {s.id for shard in step.shards for s, _ in shard} | {s.id for s in tested}
    offered = step.held_out or tuple(s for c in sorted(categories) for s in index.val(c))
    return tuple(s for s in offered if s.category in categories and not s.is_anomaly and s.id not in seen)


def _missing_held_out(output: DetectorOutput, wanted: dict[str, tuple[str, Metric]]) -> list[str]:
    """Return a note on rows without held-out images."""
    lacking = [name for name, (_, metric) in wanted.items() if HELD_OUT in metric.needs]
    if not lacking or (output.held_out is not None and len(output.held_out)):
        return []
    return [f"no good images are held out to choose a threshold on, so there is no {', '.join(lacking)}."]


def defect_regions(images: Images, truth: GroundTruth) -> list[DefectRegion]:
    """Return the defect regions of the images with a known mask, in the view; empty ones are left out."""
    found: list[DefectRegion] = []
    kept = [sample for (sample, _), known in zip(images.items, truth.known, strict=True) if known]
    for place, sample in enumerate(kept):
        for defect in images.dataset.defects(sample) if sample.is_anomaly else ():
            seen = images.view(defect.mask)
            pixels = np.flatnonzero(seen if truth.region is None else seen & truth.region[place])
            if pixels.size:
                found.append(DefectRegion(place, pixels, defect.saturation * pixels.size))
    return found


def ground_truth(images: Images, rule: str = NEAREST) -> GroundTruth:
    """Return the masks of the images in the view. ``rule`` is one of :data:`iadbe.metric.MASK_RULES`.

    The place of a defect is unknown without a mask, with an empty one, and where no defect pixel is left in the view.
    Such an image is left out of the pixel metrics, with a note, and so is one whose defects lie where pixels do not
    count.
    """
    regions = images.regions()
    masks, known = [], np.ones(len(images), bool)
    missing = vanished = ignored = lost = total = 0
    for i, (sample, _) in enumerate(images.items):
        mask = images.dataset.mask(sample) if sample.is_anomaly else None
        seen = np.zeros(images.view.shape, bool) if mask is None else mask_in_view(mask, images, rule)
        counts = seen if regions is None else seen & regions[i]
        known[i] = counts.any() or not sample.is_anomaly
        if known[i]:
            masks.append(counts)
        elif mask is None or not mask.any():
            missing += 1
        elif seen.any():
            ignored += 1
        else:
            vanished += 1
        if mask is not None and known[i] and seen.shape != mask.shape:
            gone, of = _lost_regions(mask, images) if rule == NEAREST else (0, 0)
            lost, total = lost + gone, total + of
    defects = sum(e.sample.is_anomaly for e in images.items)
    notes = [*left_out_notes(defects, missing, ignored)]
    if vanished:
        notes.append(_vanished(vanished, defects, images.view, rule))
    if lost > LOST_SHARE * total:
        notes.append(f"{lost} of {total} defect regions have no pixel in the view of {images.view}; {TOUCHED}.")
    stacked = np.stack(masks) if masks else np.zeros((0, *images.view.shape), bool)
    return GroundTruth(stacked, known, tuple(notes), None if regions is None else regions[known])


def _vanished(count: int, defects: int, view: View, rule: str) -> str:
    what = f"the masks of {count} of {defects} defective images have no defect pixel in the view of {view}"
    instead = f"; {TOUCHED}" if rule == NEAREST else ""
    return f"{what} (mask rule {rule}); pixel metrics leave them out{instead}."


def _lost_regions(mask: np.ndarray, images: Images) -> tuple[int, int]:
    """Return (regions of a mask without a pixel in the view, all its regions), under the rule ``nearest``."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    box = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    numbers = np.zeros(mask.shape, np.float32)  # which the view resamples by nearest neighbour
    from scipy.ndimage import label  # here, because predicting measures nothing

    numbers[box], count = label(mask[box], structure=EIGHT_NEIGHBOURS)
    return count - np.count_nonzero(np.unique(np.nan_to_num(images.view(numbers)))), count  # nan is padding


def mask_in_view(mask: np.ndarray, images: Images, rule: str) -> np.ndarray:
    """Return a mask (H, W) bool in the view under a rule; all but ``nearest`` resize it as a grey image."""
    if rule == NEAREST:
        return images.view(mask)
    grey = mask_coverage(mask, images.view)
    return {"over_half": grey >= 128, "touched": grey > 0, "whole": grey == 255}[rule]
