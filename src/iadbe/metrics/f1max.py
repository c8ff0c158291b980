"""Maximum F1 score over all thresholds (F1max).

Formula: max_t 2 TP(t) / (2 TP(t) + FP(t) + FN(t)).
Paper: van Rijsbergen, "Information Retrieval", chapter 7, for F1. Taking the maximum is the custom of the field. The
threshold is chosen on the tested images themselves, so this is an upper bound of what a chosen threshold reaches.
Differs:

* Exact, where ADer tries 21 thresholds on a map scaled to [0, 1].
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Counts, Curve
from iadbe.metric import EXACT, CountMetric


class F1Max(CountMetric):
    """In (0, 1], higher is better. At least 2p / (1 + p) for a share p of positives: all may be called positive."""

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
        """Choose the exact value or a dialect.

        Args:
            dialect: exact, or the name of the code to reproduce
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the maximum over all thresholds; nan where one class is missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        return dialects.ader_f1max(curve)

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the maximum. A threshold between two positives' scores only adds false positives, so these suffice."""
        found = [np.max(2 * some.tp / (some.tp + some.fp + counts.positives), axis=-1) for some, _ in counts.parts()]
        return np.max(found, axis=0)
