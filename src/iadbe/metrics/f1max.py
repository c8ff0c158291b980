"""The best F1 score that any threshold reaches.

Paper: van Rijsbergen, "Information Retrieval", chapter 7, for F1; that the best threshold is taken is custom in the
field. It is found on the tested pictures themselves, so this is what a perfectly chosen threshold would give.
Differs: exact, where ADer tries 21 thresholds on a map scaled to [0, 1].
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from iadbe.curve import Curve
from iadbe.metric import Metric


class F1Max(Metric):
    """In (0, 1]; at least 2p / (1 + p) where p is the share of defects, since all may be called defects."""

    paper: ClassVar[str] = "van Rijsbergen, Information Retrieval"
    year: ClassVar[int] = 1979
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True

    def value(self, curve: Curve) -> float:
        """Return the maximum over all thresholds; nan where one class is missing.

        A threshold between two defect scores only adds false positives, so the defect scores hold the maximum.
        """
        if not curve.has_both:
            return float("nan")
        return float(np.max(2 * curve.tp / (curve.tp + curve.fp + curve.positives)))
