"""Score images with an exported file: one result for each image, as a model folder gives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iadbe.errors import BadData
from iadbe.files.input_images import InputImage
from iadbe.runtime.inspector import Inspector


@dataclass(frozen=True, slots=True, repr=False)
class FileResult:
    """Score and anomaly map of one image."""

    path: Path
    score: float  # nan where the image could not be scored
    threshold: float | None = None
    error: str = ""  # why this image could not be scored
    scaled: float | None = None  # score in [0, 1], 0.5 at the calibration's threshold
    note: str = ""
    map: np.ndarray | None = None  # (H, W) float32, raw, at the image's own size
    scale: tuple[float, float] | None = None  # map values shown as 0 and 1
    source: InputImage | None = None

    @property
    def defective(self) -> bool | None:
        """Whether the score reaches the threshold; None without a threshold."""
        return None if self.threshold is None or self.error else self.score >= self.threshold

    @property
    def position_found(self) -> bool | None:
        """None: exported files do not register images."""
        return None

    @property
    def has_map(self) -> bool:
        """Whether there is a map, with a scale on which it can be shown."""
        return self.map is not None and self.scale is not None

    def pixels(self) -> np.ndarray | None:
        """Read the image anew, (H, W, 3) uint8."""
        return None if self.source is None else self.source.read(None)[0]

    def heat_of(self, map_: np.ndarray) -> np.ndarray | None:
        """Return raw map values in [0, 1] on the detector's fixed scale."""
        if self.scale is None:
            return None
        low, high = self.scale
        return ((map_ - low) / max(high - low, 1e-12)).clip(0, 1)

    def region_at(self, height: int, width: int) -> np.ndarray | None:
        """None: a file applies its region itself."""
        return None


def results_of(
    inspector: Inspector, images: Iterable[InputImage], threshold: float | None = None
) -> Iterator[FileResult]:
    """Score images one at a time; an unreadable image gives a result with an error.

    Args:
        inspector: a loaded file
        images: what to score
        threshold: score from which a part is defective; None: the file's own
    """
    calibration = inspector.card["calibration"]
    limit = calibration.get("threshold") if threshold is None else threshold
    low, high = calibration.get("low"), calibration.get("high")
    scale = None if low is None or high is None else (low, high)
    for image in images:
        try:
            pixels, note = image.read(None)
        except BadData as error:
            yield FileResult(image.path, float("nan"), error=str(error), source=image)
            continue
        found = inspector(pixels)
        yield FileResult(
            image.path, found.score, limit, "", found.probability, note, found.anomaly_map, scale, image
        )  # fmt: skip
