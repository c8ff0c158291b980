"""False negative rate (escape) at a given false positive rate (overkill).

Formula: the share of defective images below the lowest threshold that rejects at most the given share of good images.
Paper: Baitieva et al., "Beyond Academic Benchmarks: Critical Analysis and Best Practices for Visual Industrial Anomaly
Detection", 2503.23451, ask for such numbers (PB, 1 minus this one, at 5 %). Escape at a given overkill is the term of
the production line.
Differs:

* The threshold is chosen on the tested images themselves, so the number is optimistic.
* The dialect ``held_out`` chooses it on good images that were neither learnt nor tested: the lowest threshold that at
  most the given share of them exceeds.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves.curve import Counts, Curve, allowed_count
from iadbe.errors import BadConfig
from iadbe.metric import EXACT, CountMetric, percent, share


class Escape(CountMetric):
    """In [0, 1], lower is better."""

    paper: ClassVar[str] = "Baitieva et al., 2503.23451"
    year: ClassVar[int] = 2025
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = False
    dialects: ClassVar[dict[str, str]] = {
        "held_out": "the threshold is chosen on held-out good images, of which it rejects at most the given share",
    }

    def __init__(self, overkill: float = 0.05, dialect: Literal["exact", "held_out"] = "exact") -> None:
        """Choose the allowed false positive rate.

        Args:
            overkill: the false positive rate: share of good images that may be rejected, in [0, 1)
            dialect: exact (threshold chosen on the tested images) or held_out
        """
        if not 0.0 <= overkill < 1.0:
            raise BadConfig(f"escape.overkill is {overkill}, but it lies from 0 up to below 1.")
        self.overkill = overkill
        self.dialect = dialect
        self.needs = frozenset() if dialect == EXACT else frozenset({"held_out"})

    @classmethod
    def at(cls, text: str, **more: str) -> Escape:
        """Make the metric of a row such as ``image_escape@1%``, or ``image_escape.held_out@1%``."""
        try:
            return cls(share(text), **more)  # type: ignore[arg-type]
        except BadConfig as error:
            raise BadConfig(f"escape@{text} is no share: write one from 0% up to below 100%, as 1%.") from error

    @property
    def parameter(self) -> str:
        """The false positive rate, unless it is the usual 5 %."""
        return "" if self.overkill == 0.05 else percent(self.overkill)

    def value(self, curve: Curve) -> float:
        """Return the false negative rate; nan where a class or the held-out images are missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        threshold = curve.held_out_threshold(self.overkill)
        return float("nan") if np.isnan(threshold) else float(np.mean(curve.defect_scores <= threshold))

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the false negative rate at the lowest threshold whose false positive rate is allowed."""
        within = np.sum(
            counts.fp <= allowed_count(self.overkill, counts.negatives), axis=-1
        )  # thresholds, from the top
        found = np.concatenate([np.zeros_like(counts.tp[..., :1]), counts.tp], axis=-1)
        return 1.0 - np.take_along_axis(found, np.expand_dims(within, -1), axis=-1)[..., 0] / counts.positives
