"""How far an exported file is from torch on reference images: scores, maps and verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from iadbe.runtime.inspector import Inspection, Inspector
from iadbe.runtime.references import References


@dataclass(frozen=True, slots=True)
class Deviation:
    """The largest differences over some images."""

    images: int
    score: float  # relative to the largest score
    map: float  # relative to the largest value of all maps, or the value shown as 1 if that is larger; 0 without maps
    verdicts: int  # images with another verdict
    engine: str
    tolerance: float  # of scores and maps

    @property
    def holds(self) -> bool:
        """Whether file and torch agree."""
        return self.verdicts == 0 and self.score <= self.tolerance and self.map <= self.tolerance  # false for nan

    def __str__(self) -> str:
        maps = f", maps within {self.map:.1e}" if self.map else ""
        others = f", {self.verdicts} other verdicts" if self.verdicts else ""
        return f"{self.engine} and torch on {self.images} images: scores within {self.score:.1e}{maps}{others}"


def compare(inspector: Inspector, references: References) -> Deviation:
    """Score the reference images with a file."""
    return deviation(references, [inspector(image) for image in references.images], inspector.engine)


def deviation(references: References, found: Sequence[Inspection], engine: str) -> Deviation:
    """Return how far results of a file are from those of torch, for the reference images in their order."""
    pairs = list(zip(references.expected, found, strict=True))
    maps = [
        (a.anomaly_map, b.anomaly_map[::stride, ::stride])
        for (a, b), stride in zip(pairs, references.strides, strict=True)
        if a.anomaly_map is not None and b.anomaly_map is not None
    ]
    other = sum(a.verdict != b.verdict for a, b in pairs)
    scores = _apart([(a.score, b.score) for a, b in pairs])
    return Deviation(len(pairs), scores, _apart(maps, references.map_scale), other, engine, references.tolerance)


def _apart(pairs: Sequence[tuple[Any, Any]], scale: float = 0.0) -> float:
    """Return the largest difference of pairs of numbers or arrays, relative to the largest value or ``scale``."""
    arrays = [(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    if not arrays:
        return 0.0
    largest = np.max([np.abs(a).max() for a, _ in arrays])
    apart = np.max([np.abs(a - b).max() for a, b in arrays])  # nan if one is, unlike Python's max
    return float(apart / max(largest, scale, 1e-12))
