"""The mean of F1 at the thresholds 0.2, 0.3 … 0.8 on maps scaled to [0, 1].

Paper: Zhang et al., "Learning Feature Inversion for Multi-class Anomaly Detection under General-purpose COCO-AD
Benchmark", 2404.10760, where it is called mF1 at .2-.8.
Differs: a score within a millionth of a threshold counts as on it, not above, which rounding cannot turn; the dialect
has no such slack, and 1e-8 in its denominators. That maps are scaled over all of a category's test images, so that
one loud pixel lowers the number, is part of the definition.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Curve
from iadbe.metric import EXACT, Metric

THRESHOLDS = np.arange(2, 9) / 10
SLACK = 1e-6


class MF1(Metric):
    """In [0, 1]; F1max is the best of all thresholds, this the mean of seven."""

    paper: ClassVar[str] = "Zhang et al., Feature Inversion and COCO-AD, 2404.10760"
    year: ClassVar[int] = 2024
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    rank_based: ClassVar[bool] = False
    dialects: ClassVar[dict[str, str]] = {
        "ader": "ADer's mF1_px_0.2_0.8_0.1, to the letter: thresholds 0.2, 0.3 … 0.8 on maps scaled to [0, 1]",
    }

    def __init__(self, dialect: Literal["exact", "ader"] = "exact") -> None:
        """Compute it as it is defined, or as their code does.

        Args:
            dialect: exact, or whose way of computing it
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the mean over the thresholds, 0 where all scores are equal; nan where one class is missing."""
        if not curve.has_both:
            return float("nan")
        if self.dialect != EXACT:
            return dialects.ader_means(curve)[0]
        found, called = dialects.counts_above_scaled(curve, THRESHOLDS, SLACK)
        return float(np.mean(2 * found / (called + curve.positives))) if np.isfinite(found).all() else 0.0
