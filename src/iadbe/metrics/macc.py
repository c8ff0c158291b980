"""Mean pixel recall (mAcc) at the thresholds 0.2, 0.3 … 0.8 on maps scaled to [0, 1].

Formula: the mean over the seven thresholds t of TP(t) / (TP(t) + FN(t)). Maps are scaled by the minimum and
maximum over all of a category's test images, so one extreme pixel lowers the number.
Paper: Zhang et al., "Learning Feature Inversion for Multi-class Anomaly Detection under General-purpose COCO-AD
Benchmark", 2404.10760, where it is called mAcc at .2-.8.
Differs:

* A score within 1e-6 of a threshold counts as equal to it, not above, so rounding cannot change the result. The dialect
  has no such tolerance, and 1e-8 in its denominators.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Curve
from iadbe.metric import EXACT, Metric

THRESHOLDS = np.arange(2, 9) / 10
TOLERANCE = 1e-6


class MAcc(Metric):
    """In [0, 1], higher is better. It is a recall: false positives cost nothing, so 1 is easy to reach."""

    paper: ClassVar[str] = "Zhang et al., Feature Inversion and COCO-AD, 2404.10760"
    year: ClassVar[int] = 2024
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    rank_based: ClassVar[bool] = False
    dialects: ClassVar[dict[str, str]] = {
        "ader": "ADer's mAcc_px_0.2_0.8_0.1, to the letter: thresholds 0.2, 0.3 … 0.8 on maps scaled to [0, 1]",
    }

    def __init__(self, dialect: Literal["exact", "ader"] = "exact") -> None:
        """Choose the exact value or a dialect.

        Args:
            dialect: exact, or the name of the code to reproduce
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the mean over the thresholds, 0 where all scores are equal; nan where one class is missing."""
        if not curve.has_both:
            return float("nan")
        if self.dialect != EXACT:
            return dialects.ader_means(curve)[1]
        found, _ = dialects.counts_above_scaled(curve, THRESHOLDS, TOLERANCE)
        return float(np.mean(found / curve.positives)) if np.isfinite(found).all() else 0.0
