"""Area under the ROC curve (AUROC): the probability that a positive scores above a negative, ties counting half.

Formula: AUROC = P(s+ > s-) + P(s+ = s-) / 2, the Mann-Whitney statistic.
Paper: Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve".
Differs: nothing. It is never flipped: a detector worse than chance stays below 0.5.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves import dialects
from iadbe.curves.curve import Counts, Curve
from iadbe.metric import EXACT, CountMetric


class AUROC(CountMetric):
    """In [0, 1], higher is better. Chance is 0.5."""

    paper: ClassVar[str] = "Hanley and McNeil, Radiology 143"
    year: ClassVar[int] = 1982
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image", "pixel"})
    higher_is_better: ClassVar[bool] = True
    dialects: ClassVar[dict[str, str]] = {
        "uniad": "UniAD, RealNet: a value below 0.5 is replaced by 1 minus it",
        "adeval": "ADEval, INP-Former's later code: 1000 bins of equal width from the least to the greatest score",
        "adeval_50": "ADer: as adeval, with 50 bins",
        "orthoad": "OrthoAD: both rates are means over images, at 1000 thresholds from the image of the top score",
        "open_iad": "open-iad's PatchCore: scores are scaled to [0, 1] over the test set and cut at 0.5 first",
    }
    map_dialects: ClassVar[frozenset[str]] = frozenset({"orthoad"})

    def __init__(self, dialect: Literal["exact", "uniad", "adeval", "adeval_50", "orthoad", "open_iad"] = "exact"):
        """Choose the exact value or a dialect.

        Args:
            dialect: exact, or the name of the code to reproduce
        """
        self.dialect = dialect

    def value(self, curve: Curve) -> float:
        """Return the Mann-Whitney statistic; nan where one class is missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        if self.dialect == "uniad":
            return max(found := super().value(curve), 1 - found)
        if self.dialect == "orthoad":
            return dialects.orthoad_auroc(curve)
        if self.dialect == "open_iad":
            return super().value(dialects.binarised_at_half(curve))
        return dialects.adeval_auroc(curve, 50 if self.dialect == "adeval_50" else 1000)

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the Mann-Whitney statistic, counted in integers."""
        # twice the discordant pairs; ties count once
        terms = [np.sum(defects * (some.fp + some.fp_above), axis=-1) for some, defects in counts.parts()]
        lost: np.ndarray = np.sum(terms, axis=0)
        return 1.0 - lost / (2 * counts.positives * counts.negatives)
