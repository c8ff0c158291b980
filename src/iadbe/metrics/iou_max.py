"""Maximum intersection over union of predicted and true defect pixels over all thresholds (IoU-max).

Formula: max_t TP(t) / (TP(t) + FP(t) + FN(t)) = F1max / (2 - F1max), so it orders detectors as F1max does.
Paper: Jaccard, "The Distribution of the Flora in the Alpine Zone", for the measure; ADer, 2406.03262, for its maximum
as a metric of anomaly detection.
Differs:

* Exact, all pixels of the test pooled, where ADer tries 21 thresholds on a map scaled to [0, 1].
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Counts, Curve
from iadbe.metric import EXACT, CountMetric


class IoUMax(CountMetric):
    """In (0, 1], higher is better. At least the share of defect pixels: all may be called defects."""

    paper: ClassVar[str] = "Jaccard, New Phytologist 11"
    year: ClassVar[int] = 1912
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True
    dialects: ClassVar[dict[str, str]] = {
        "ader": "ADer: 21 thresholds 0, 0.05 … 1 on maps scaled to [0, 1] over the test set",
    }

    def __init__(self, dialect: Literal["exact", "ader"] = "exact") -> None:
        """Choose the exact value or a dialect.

        Args:
            dialect: exact, or the name of the code to reproduce
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the maximum over all thresholds; nan where one class is missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        return dialects.ader_iou_max(curve)

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the maximum. A threshold between two positives' scores only adds false positives, so these suffice."""
        return np.max([np.max(some.tp / (some.fp + some.positives), axis=-1) for some, _ in counts.parts()], axis=0)
