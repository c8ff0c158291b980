"""Average precision (AP): the precision at each positive's score, averaged over the positives.

Formula: AP = Σ_k (R_k - R_{k-1}) P_k over the distinct thresholds k, with recall R and precision P.
Paper: Davis and Goadrich, "The relationship between precision-recall and ROC curves": precision is not linear between
two points of the curve, so the sum goes in steps. Trapezoids, as in ADEval, give more.
Differs:

* nan where one class is missing, like all metrics here; scikit-learn returns 0 without positives and 1 with nothing
  but positives.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Counts, Curve
from iadbe.metric import EXACT, CountMetric


class AP(CountMetric):
    """In (0, 1], higher is better. Chance is the share of positives."""

    paper: ClassVar[str] = "Davis and Goadrich, ICML 2006"
    year: ClassVar[int] = 2006
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True
    dialects: ClassVar[dict[str, str]] = {
        "adeval": "ADEval, INP-Former's later code: trapezoids over 1000 bins of equal width",
        "adeval_50": "ADer: as adeval, with 50 bins",
        "open_iad": "open-iad's PatchCore: scores are scaled to [0, 1] over the test set and cut at 0.5 first",
    }

    def __init__(self, dialect: Literal["exact", "adeval", "adeval_50", "open_iad"] = "exact") -> None:
        """Choose the exact value or a dialect.

        Args:
            dialect: exact, or the name of the code to reproduce
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the average precision; nan where one class is missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        if self.dialect == "open_iad":
            return super().value(dialects.binarised_at_half(curve))
        return dialects.adeval_ap(curve, 50 if self.dialect == "adeval_50" else 1000)

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the sum over thresholds of recall gained times precision."""
        terms = [
            np.sum(defects / counts.positives * (some.tp / np.maximum(some.tp + some.fp, 1)), axis=-1)
            for some, defects in counts.parts()
        ]
        return np.sum(terms, axis=0)
