"""From scores and ground truth to the rows of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iadbe.curves.curve import Curve, DefectRegion
from iadbe.data.images import Images
from iadbe.dataset import Index
from iadbe.metric import NEAREST, Metric, parse
from iadbe.types import Sample, Step

HELD_OUT = "held_out"
PARTS = "parts"


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


def measure(
    output: DetectorOutput, images: Images, metrics: Sequence[str], pixel_curves: list[Curve] | None = None
) -> tuple[dict[str, float], list[str]]:
    """Return (value by row name, notes for readers of the values).

    The pixel curve under the rule ``nearest`` is appended to ``pixel_curves``.
    """
    truth = np.array([e.sample.is_anomaly for e in images.items], bool)
    wanted = {name: parse(name) for name in metrics}
    image_curve = Curve(truth, output.score, output.held_out)
    rows = {name: metric.value(image_curve) for name, (level, metric) in wanted.items() if level == "image"}
    notes = _missing_held_out(output, wanted)
    pixel = {name: metric for name, (level, metric) in wanted.items() if level == "pixel"}
    if not pixel:
        return rows, notes
    if output.map is None:
        return rows, [*notes, "the detector does not localise, so there are no pixel metrics."]
    found: dict[str, float] = {}
    for rule in dict.fromkeys(metric.mask for metric in pixel.values()):
        chosen = {name: metric for name, metric in pixel.items() if metric.mask == rule}
        masks, known, told = ground_truth(images, rule)
        notes += [n for n in told if n not in notes]
        if not masks.any():
            if rule == NEAREST:
                notes.append("there are no masks, so there are no pixel metrics.")
            continue
        parts = defect_regions(images, known) if any(PARTS in m.needs for m in chosen.values()) else None
        maps = output.map if known.all() else output.map[known]
        curve = Curve(masks, maps, output.held_out_map, parts)
        found |= {name: metric.value(curve) for name, metric in chosen.items()}
        if pixel_curves is not None and rule == NEAREST:
            pixel_curves.append(curve)
    return rows | {name: found[name] for name in pixel if name in found}, notes


def needs_held_out(metrics: Sequence[str]) -> bool:
    """Say whether any row needs held-out good images."""
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


def defect_regions(images: Images, known: np.ndarray) -> list[DefectRegion]:
    """Return the defect regions of the images that are ``known`` (N,), in the view; empty ones are left out."""
    found: list[DefectRegion] = []
    kept = [sample for (sample, _), there in zip(images.items, known, strict=True) if there]
    for place, sample in enumerate(kept):
        for region in images.dataset.regions(sample) if sample.is_anomaly else ():
            pixels = np.flatnonzero(images.view(region.mask))
            if pixels.size:
                found.append(DefectRegion(place, pixels, region.saturation * pixels.size))
    return found


def ground_truth(images: Images, rule: str = NEAREST) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return (masks (M, H, W) bool in the view, which of the N images they belong to (N,), notes).

    A defective image without a mask, or with an empty one, says nothing about where its defect is: it is left
    out of the pixel metrics, and a note says so. ``rule`` is one of :data:`iadbe.metric.MASK_RULES`.
    """
    size = images.view.size
    masks, known = [], np.ones(len(images), bool)
    for i, (sample, _) in enumerate(images.items):
        mask = images.dataset.mask(sample) if sample.is_anomaly else None
        if sample.is_anomaly and (mask is None or not mask.any()):
            known[i] = False
        else:
            masks.append(np.zeros((size, size), bool) if mask is None else mask_in_view(mask, images, rule))
    unknown = int((~known).sum())
    defects = sum(e.sample.is_anomaly for e in images.items)
    notes = []
    if 0 < unknown < defects:
        notes = [f"{unknown} of {defects} defective images have no mask; pixel metrics leave them out."]
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), bool)
    return stacked, known, notes


def mask_in_view(mask: np.ndarray, images: Images, rule: str) -> np.ndarray:
    """Return a mask (H, W) bool in the view under a rule; all but ``nearest`` resize it as a grey image."""
    if rule == NEAREST:
        return images.view(mask)
    grey = images.view(np.repeat(mask[:, :, None], 3, axis=2).astype(np.uint8) * 255)[:, :, 0]
    return {"over_half": grey >= 128, "touched": grey > 0, "whole": grey == 255}[rule]
