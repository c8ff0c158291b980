"""The best F1 score that any threshold reaches.

Paper: van Rijsbergen, "Information Retrieval", chapter 7, for F1; that the best threshold is taken is custom in the
field. It is found on the tested images themselves, so this is what a perfectly chosen threshold would give.
Differs: exact, where ADer tries 21 thresholds on a map scaled to [0, 1].
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Counts, Curve
from iadbe.metric import EXACT, CountMetric


class F1Max(CountMetric):
    """In (0, 1]; at least 2p / (1 + p) where p is the share of defects, since all may be called defects."""

    paper: ClassVar[str] = "van Rijsbergen, Information Retrieval"
    year: ClassVar[int] = 1979
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True
    dialects: ClassVar[dict[str, str]] = {
        "ader": "ADer's pixel F1max: 21 thresholds 0, 0.05 … 1 on maps scaled to [0, 1] over the test set",
    }
    map_dialects: ClassVar[frozenset[str]] = frozenset({"ader"})

    def __init__(self, dialect: Literal["exact", "ader"] = "exact") -> None:
        """Compute it exactly, or as others do.

        Args:
            dialect: exact, or whose way of computing it
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the maximum over all thresholds; nan where one class is missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        return dialects.ader_f1max(curve)

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the maximum. A threshold between two defect scores only adds false positives, so these hold it."""
        return np.max(2 * counts.tp / (counts.tp + counts.fp + counts.positives), axis=-1)
