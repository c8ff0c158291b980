"""From scores and ground truth to the rows of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from iadbe.curves.curve import Curve
from iadbe.data.images import Images
from iadbe.dataset import Index
from iadbe.evaluation.pixel_truth import NativePixels, PixelTruth, pixels_in_view
from iadbe.evaluation.spilled_maps import Maps, SpilledMaps
from iadbe.metric import NEAREST, Metric, parse
from iadbe.types import Sample, Step

HELD_OUT = "held_out"
PARTS = "parts"
GOOD = "good"
NAN = float("nan")


@dataclass(frozen=True, slots=True)
class DetectorOutput:
    """Raw scores and maps of the test images: not normalised, clamped or rounded.

    ``held_out`` and ``held_out_map`` are scores and maps of good images that were neither learnt nor tested: the only
    ones on which a metric may choose a threshold.
    """

    score: np.ndarray  # (N,) float32
    map: Maps | None = None  # (N, H, W) float32
    held_out: np.ndarray | None = None  # (M,) float32
    held_out_map: Maps | None = None  # (M, H, W) float32

    def close(self) -> None:
        """Remove the maps that are not in memory."""
        for maps in (self.map, self.held_out_map):
            if isinstance(maps, SpilledMaps):
                maps.close()


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
    maps, apart = output.map, None if output.held_out_map is None else (output.held_out_map, held_out)
    found: dict[str, float] = {}
    for rule in (NEAREST,) if native else tuple(dict.fromkeys(metric.mask for metric in pixel.values())):
        chosen = {name: metric for name, metric in pixel.items() if native or metric.mask == rule}
        pixels = NativePixels(maps, images, apart) if native else pixels_in_view(maps, images, apart, rule)
        notes += [n for n in pixels.notes if n not in notes]
        if not pixels.has_defects:
            if rule == NEAREST and not pixels.notes:
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


def _pixel_rows(
    pixels: PixelTruth, metrics: Mapping[str, Metric], pixel_curves: list[Curve] | None
) -> tuple[dict[str, float], list[str]]:
    kept = [e.sample for e, known in zip(pixels.images.items, pixels.known, strict=True) if known]
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
