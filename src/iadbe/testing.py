"""From scores and ground truth to the rows of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iadbe.curve import Curve
from iadbe.images import Images
from iadbe.metric import parse


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a detector said of the test pictures, raw: nothing is normalised, clamped or rounded."""

    score: np.ndarray  # (N,) float32
    map: np.ndarray | None = None  # (N, H, W) float32


def measure(evidence: Evidence, images: Images, metrics: Sequence[str]) -> tuple[dict[str, float], list[str]]:
    """Return (value by row name, sentences that a reader of the values must know)."""
    truth = np.array([e.sample.is_anomaly for e in images.examples], bool)
    wanted = {name: parse(name) for name in metrics}
    image_curve = Curve(truth, evidence.score)
    rows = {name: metric.value(image_curve) for name, (level, metric) in wanted.items() if level == "image"}
    pixel = {name: metric for name, (level, metric) in wanted.items() if level == "pixel"}
    if not pixel:
        return rows, []
    if evidence.map is None:
        return rows, ["the detector does not localise, so there are no pixel metrics."]
    masks, known, notes = ground_truth(images)
    if not masks.any():
        return rows, [*notes, "there are no masks, so there are no pixel metrics."]
    maps = evidence.map if known.all() else evidence.map[known]
    pixel_curve = Curve(masks, maps)
    rows |= {name: metric.value(pixel_curve) for name, metric in pixel.items()}
    return rows, notes


def ground_truth(images: Images) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Return (masks (M, H, W) bool in the view, which of the N pictures they belong to (N,), notes).

    A defective picture without a mask, or with an empty one, says nothing about where its defect is: it is left
    out of the pixel metrics, and a note says so.
    """
    size = images.view.size
    masks, known = [], np.ones(len(images), bool)
    for i, (sample, _) in enumerate(images.examples):
        mask = images.dataset.mask(sample) if sample.is_anomaly else None
        shown = np.zeros((size, size), bool) if mask is None else images.view(mask)
        if sample.is_anomaly and (mask is None or not mask.any()):
            known[i] = False
        else:
            masks.append(shown)
    unknown = int((~known).sum())
    defects = sum(e.sample.is_anomaly for e in images.examples)
    notes = []
    if 0 < unknown < defects:
        notes = [f"{unknown} of {defects} defective pictures have no mask; pixel metrics leave them out."]
    stacked = np.stack(masks) if masks else np.zeros((0, size, size), bool)
    return stacked, known, notes
