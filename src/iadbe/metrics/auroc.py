"""Area under the ROC curve: the chance that a defect scores above a clean one, equal scores counting half.

Paper: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve".
Differs: nothing. It is never flipped: a detector worse than chance stays below 0.5.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from iadbe.curve import Curve
from iadbe.metric import Metric


class AUROC(Metric):
    """In [0, 1]; 0.5 is chance."""

    paper: ClassVar[str] = "Hanley and McNeil, Radiology 143"
    year: ClassVar[int] = 1982
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True

    def value(self, curve: Curve) -> float:
        """Return the rank statistic, counted in whole numbers; nan where one class is missing."""
        if not curve.has_both:
            return float("nan")
        defects = np.diff(curve.tp, prepend=0)  # (K,) with exactly this score
        lost = int(np.dot(defects, curve.fp + curve.fp_above))  # twice the pairs in the wrong order: ties count once
        return 1.0 - lost / (2 * curve.positives * curve.negatives)
