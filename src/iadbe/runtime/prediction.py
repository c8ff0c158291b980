"""Score images with an exported file: one result for each image, as a model folder gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from iadbe.errors import BadData
from iadbe.files.input_images import InputImage
from iadbe.runtime.inspector import Inspector
from iadbe.runtime.scored_image import ScoredImage


@dataclass(frozen=True, slots=True, repr=False)
class FileResult(ScoredImage):
    """Score and anomaly map of one image, by an exported file."""

    map: np.ndarray | None = None  # (H, W) float32, raw, at the image's own size

    @property
    def has_map(self) -> bool:
        """Whether there is a map, with a scale on which it can be shown."""
        return self.map is not None and self.scale is not None


def results_of(
    inspector: Inspector, images: Iterable[InputImage], threshold: float | None = None
) -> Iterator[FileResult]:
    """Score images one at a time; an unreadable image gives a result with an error.

    Args:
        inspector: a loaded file
        images: what to score
        threshold: score from which a part is rejected, all others being good; None: the file's own thresholds
    """
    calibration = inspector.card["calibration"]
    own = threshold is None
    limit, look = (calibration.get("threshold"), calibration.get("look_threshold")) if own else (threshold, None)
    low, high = calibration.get("low"), calibration.get("high")
    scale = None if low is None or high is None else (low, high)
    for image in images:
        try:
            pixels, note = image.read(inspector.intensity)
            found = inspector(pixels)
        except BadData as error:
            yield FileResult(image.path, float("nan"), error=str(error), source=image)
            continue
        by_regions = own and found.regions is not None
        yield FileResult(
            image.path, found.score, limit, scaled=found.probability, note=note, scale=scale, source=image,
            look_threshold=look, decided=found.verdict if by_regions else None,
            regions=found.regions if by_regions else None, intensity=inspector.intensity, map=found.anomaly_map,
        )  # fmt: skip
