"""False positive rate (overkill) at a given false negative rate (escape).

Formula: the share of good images at or above the highest threshold that misses at most the given share of defects.
Paper: Baitieva et al., "Beyond Academic Benchmarks: Critical Analysis and Best Practices for Visual Industrial Anomaly
Detection", 2503.23451: their PG at n % is 1 minus overkill@n%. Overkill at zero escape is the term of the production
line.
Differs:

* The threshold is chosen on the tested images themselves, so the number is optimistic.
* The dialect ``held_out`` chooses it on good images that were neither learnt nor tested: the lowest threshold that at
  most the given share of them exceeds. The number is the share of tested good images above it.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from iadbe.curves.curve import Counts, Curve, allowed_count
from iadbe.errors import BadConfig
from iadbe.metric import EXACT, CountMetric, percent, share


class Overkill(CountMetric):
    """In [0, 1], lower is better. A good image that ties with the threshold counts as rejected."""

    paper: ClassVar[str] = "Baitieva et al., 2503.23451"
    year: ClassVar[int] = 2025
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"image"})
    higher_is_better: ClassVar[bool] = False
    dialects: ClassVar[dict[str, str]] = {
        "held_out": "the threshold is chosen on held-out good images, of which it rejects at most the given share",
    }

    def __init__(self, share: float = 0.0, dialect: Literal["exact", "held_out"] = "exact") -> None:
        """Choose the allowed error.

        Args:
            share: the allowed false negative rate, in [0, 1); with held_out, the false positive rate on held-out images
            dialect: exact (threshold chosen on the tested images) or held_out
        """
        if not 0.0 <= share < 1.0:
            raise BadConfig(f"overkill.share is {share}, but it lies from 0 up to below 1.")
        self.share = share
        self.dialect = dialect
        self.needs = frozenset() if dialect == EXACT else frozenset({"held_out"})

    @classmethod
    def at(cls, text: str, **more: str) -> Overkill:
        """Make the metric of a row such as ``image_overkill@1%``, or ``image_overkill.held_out@1%``."""
        try:
            return cls(share(text), **more)  # type: ignore[arg-type]
        except BadConfig as error:
            raise BadConfig(f"overkill@{text} is no share: write one from 0% up to below 100%, as 1%.") from error

    @property
    def parameter(self) -> str:
        """The share, unless it is 0."""
        return "" if self.share == 0 else percent(self.share)

    def value(self, curve: Curve) -> float:
        """Return the false positive rate; nan where a class or the held-out images are missing."""
        if self.dialect == EXACT or not curve.has_both:
            return super().value(curve)
        threshold = curve.held_out_threshold(self.share)
        return float("nan") if np.isnan(threshold) else float(np.mean(curve.clean_scores > threshold))

    def from_counts(self, counts: Counts) -> np.ndarray:
        """Return the false positive rate at the highest threshold that finds enough defects."""
        wanted = counts.positives - allowed_count(self.share, counts.positives)
        first = np.argmax(counts.tp >= wanted, axis=-1)
        return np.take_along_axis(counts.fp, np.expand_dims(first, -1), axis=-1)[..., 0] / counts.negatives
