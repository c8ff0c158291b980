"""Average precision: the precision at each defect's score, averaged over the defects.

Paper: Davis and Goadrich, "The relationship between precision-recall and ROC curves": between two points of the curve
precision does not run straight, so the sum goes in steps. Trapezoids, as in ADEval, give more.
Differs: nan where one class is missing, like all metrics here; scikit-learn says 0 without defects and 1 with nothing
but defects.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from iadbe.curve import Curve
from iadbe.metric import Metric


class AP(Metric):
    """In (0, 1]; the share of defects is chance."""

    paper: ClassVar[str] = "Davis and Goadrich, ICML 2006"
    year: ClassVar[int] = 2006
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True

    def value(self, curve: Curve) -> float:
        """Return the sum over thresholds of recall gained times precision; nan where one class is missing."""
        if not curve.has_both:
            return float("nan")
        gained = np.diff(curve.tp, prepend=0) / curve.positives
        return float(np.sum(gained * (curve.tp / (curve.tp + curve.fp))))
