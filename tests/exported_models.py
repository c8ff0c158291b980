"""Fitted detectors for tests of exported files: small, on drawn images."""

from functools import cache

import numpy as np

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.evaluation.calibration import Calibration
from iadbe.registry import load
from iadbe.running.model_folder import FittedDetector
from iadbe.types import TrainingImage

THRESHOLD, WIDTH = 0.3, 0.1
SMALL = View(64)


@cache
def golden(view: View = SMALL, calibrated: bool = True) -> FittedDetector:
    """Return the mean image of eight drawn parts, the smallest detector that localises."""
    detector = load("detectors", "golden")()
    detector.view = view
    toy = Toy()
    samples = [s for s in toy.samples() if s.category == "metal" and s.split == "train"][:8]
    detector.fit(Images(toy, [TrainingImage(s) for s in samples], view), np.random.default_rng(0))
    calibration = (
        Calibration("by hand", threshold=THRESHOLD, width=WIDTH, low=0.0, high=0.6) if calibrated else Calibration()
    )
    return FittedDetector(
        detector.eval(), "golden", {}, calibration, {"dataset": "toy", "run": "0123"}, frozenset("ab")
    )


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (H, W, 3) uint8 without any structure."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
