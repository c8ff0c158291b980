"""What scoring one image gives, by a model folder or an exported file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from iadbe.files.input_images import InputImage
from iadbe.runtime.regions import Region
from iadbe.runtime.verdict import REJECT, UNKNOWN, verdict_of
from iadbe.types import IntensityRange


@dataclass(frozen=True, slots=True, repr=False)
class ScoredImage:
    """Score of one image, its verdict, and how its map is shown."""

    path: Path
    score: float  # nan where the image could not be scored
    threshold: float | None = None
    error: str = ""  # why this image could not be scored
    scaled: float | None = None  # score in [0, 1], 0.5 at the calibration's threshold
    note: str = ""  # where a deep image does not fit the range that it was scaled by
    scale: tuple[float, float] | None = None  # map values shown as 0 and 1, fixed when the detector was fitted
    intensity: IntensityRange | None = None  # by which a deep image is read, for display too
    source: InputImage | None = field(default=None, compare=False)
    look_threshold: float | None = None  # score from which the part is to be looked at; None: there are two verdicts
    decided: str | None = None  # the verdict by regions; None: it follows from the score
    regions: tuple[Region, ...] | None = None  # that count, by a rule for regions; None: the model has none

    @property
    def verdict(self) -> str:
        """``good``, ``look`` (at it) or ``reject``; empty without a threshold, and where the part was not found.

        By the regions of the map where the model has a rule for them, else by the score.
        """
        if self.error or self.position_found is False:
            return UNKNOWN
        if self.decided is not None:
            return self.decided
        return verdict_of(self.score, self.threshold, self.look_threshold)

    @property
    def defective(self) -> bool | None:
        """Whether the part is rejected; None without a verdict."""
        return self.verdict == REJECT if self.verdict else None

    @property
    def position_found(self) -> bool | None:
        """Whether the part was found in the image; None: the model does not register images."""
        return None

    @property
    def map(self) -> np.ndarray | None:
        """Anomaly map, (H, W) float32, raw, at the image's own size; None without one."""
        return None

    @property
    def has_map(self) -> bool:
        """Whether there is a map, with a scale on which it can be shown."""
        return self.map is not None and self.scale is not None

    def pixels(self) -> np.ndarray | None:
        """Read the image anew, (H, W, 3) uint8; None where it is not known where it came from."""
        return None if self.source is None else self.source.read(self.intensity)[0]

    def region_at(self, height: int, width: int) -> np.ndarray | None:
        """Return which pixels count at any size, (height, width) bool; None: all of them."""
        return None

    def heat_of(self, map_: np.ndarray) -> np.ndarray | None:
        """Return raw map values, or some rows of them, in [0, 1] on the detector's fixed scale."""
        if self.scale is None:
            return None
        low, high = self.scale
        return ((map_ - low) / max(high - low, 1e-12)).clip(0, 1)
