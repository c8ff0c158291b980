"""How far an exported file is from torch: both score the same images, and the largest differences are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from iadbe.export.program import Program
from iadbe.runtime.inspector import Inspection, Inspector
from iadbe.runtime.verdict import VERDICTS

TOLERANCE = 1e-4  # relative difference of scores and maps in float32


@dataclass(frozen=True, slots=True)
class Parity:
    """The largest differences over some images."""

    images: int
    score: float  # relative to the largest score
    map: float  # relative to the largest value of all maps; 0 without maps
    verdicts: int  # images with another verdict
    engine: str

    @property
    def holds(self) -> bool:
        """Whether file and torch agree."""
        return self.verdicts == 0 and max(self.score, self.map) <= TOLERANCE

    def __str__(self) -> str:
        maps = f", maps within {self.map:.1e}" if self.map else ""
        others = f", {self.verdicts} other verdicts" if self.verdicts else ""
        return f"{self.engine} and torch on {self.images} images: scores within {self.score:.1e}{maps}{others}"


def compare(program: Program, file: Path, images: Sequence[np.ndarray], engine: str = "auto") -> Parity:
    """Score images (H, W, 3) uint8, of any sizes, by torch and by the file."""
    inspector = Inspector(file, engine, threads=torch.get_num_threads())
    pairs = [(inspector.decided(_by_torch(program, image)), inspector(image)) for image in images]
    scores = _apart([(a.score, b.score) for a, b in pairs])
    maps = _apart([(a.anomaly_map, b.anomaly_map) for a, b in pairs if a.anomaly_map is not None])
    return Parity(len(images), scores, maps, sum(a.verdict != b.verdict for a, b in pairs), inspector.engine)


def _by_torch(program: Program, image: np.ndarray) -> Inspection:
    with torch.no_grad():
        found = {name: value[0].numpy() for name, value in program(program.input_of(image[None])).items()}
    probability = float(found["probability"])
    return Inspection(
        float(found["score"]),
        None if np.isnan(probability) else probability,
        VERDICTS[int(found["verdict"])],
        found.get("anomaly_map"),
    )


def _apart(pairs: Sequence[tuple[object, object]]) -> float:
    """Return the largest difference of pairs of numbers or arrays, relative to the largest value."""
    arrays = [(np.asarray(a, float), np.asarray(b, float)) for a, b in pairs]
    largest = max((float(np.abs(a).max()) for a, _ in arrays), default=0.0)
    return max((float(np.abs(a - b).max()) for a, b in arrays), default=0.0) / max(largest, 1e-12)
