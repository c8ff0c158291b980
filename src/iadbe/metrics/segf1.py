"""Pixel F1 at a fixed threshold: mean plus three standard deviations of the map values of held-out good images.

Formula: F1 = 2 TP / (2 TP + FP + FN) over all test pixels pooled, at the threshold μ + ``deviations`` · σ.
Paper: Heckler-Kram et al., "The MVTec AD 2 Dataset: Advanced Scenarios for Unsupervised Anomaly Detection", 2503.21622:
a line must fix its threshold before the first defect comes, so the best threshold of the test set is no answer.
Differs:

* The threshold is that of the paper's baselines; the paper leaves the choice to the detector.
* Without held-out good images there is no number.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from iadbe.curves.curve import Curve
from iadbe.metric import Metric


class SegF1(Metric):
    """In [0, 1], higher is better. 0 without true positives."""

    paper: ClassVar[str] = "Heckler-Kram et al., 2503.21622"
    year: ClassVar[int] = 2025
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    rank_based: ClassVar[bool] = False
    needs: frozenset[str] = frozenset({"held_out"})

    def __init__(self, deviations: float = 3.0) -> None:
        """Choose the threshold.

        Args:
            deviations: standard deviations of held-out pixels above their mean, the threshold
        """
        self.deviations = deviations

    def value(self, curve: Curve) -> float:
        """Return F1; nan where a class or the held-out images are missing."""
        mean, deviation = curve.held_out_moments()
        if not curve.has_both or np.isnan(mean):
            return float("nan")
        threshold = mean + self.deviations * deviation
        found = int(np.count_nonzero(curve.defect_scores > threshold))
        called = sum(int(np.count_nonzero(one.counted_scores > threshold)) for one in curve.maps())  # no copy of all
        return 2 * found / (called + curve.positives)
