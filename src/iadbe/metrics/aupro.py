"""Area under the per-region overlap curve up to a false positive rate, divided by that rate.

Paper: Bergmann et al., "The MVTec Anomaly Detection Dataset: A Comprehensive Real-World Dataset for Unsupervised
Anomaly Detection". A small region counts as much as a large one.
Differs: nothing. Every distinct score is a threshold, regions are 8-connected and pooled over all pictures, the rate is
over the clean pixels of all pictures, and the curve is cut by linear interpolation at the limit. Papers often use 100
or 200 thresholds instead, which gives less, at a limit of 5 % by points.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import ClassVar

import numpy as np

from iadbe.curve import Curve
from iadbe.errors import BadConfig
from iadbe.metric import Metric


class AUPRO(Metric):
    """In [0, 1]; half the limit is chance."""

    paper: ClassVar[str] = "Bergmann et al., IJCV 129"
    year: ClassVar[int] = 2021
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True

    def __init__(self, limit: float = 0.3) -> None:
        """Cut the curve at ``limit``.

        Args:
            limit: the false positive rate up to which the curve counts, in (0, 1]; 0.05 is the strict one
        """
        if not 0.0 < limit <= 1.0:
            raise BadConfig(f"aupro.limit is {limit}, but a false positive rate lies above 0 and at most at 1.")
        self.limit = limit

    @classmethod
    def at(cls, text: str) -> AUPRO:
        """Make the metric of a row such as ``pixel_aupro@5%``."""
        try:
            return cls(float(Decimal(text.removesuffix("%")) / 100) if text.endswith("%") else float("nan"))
        except (InvalidOperation, BadConfig) as error:
            raise BadConfig(f"aupro@{text} is no limit: write a share above 0% and up to 100%, as aupro@5%.") from error

    @property
    def label(self) -> str:
        """``aupro`` at the usual 30 %, else with its limit."""
        return "aupro" if self.limit == 0.3 else f"aupro@{self.limit * 100:.12g}%"

    def value(self, curve: Curve) -> float:
        """Return the area; nan where there are no defects or no clean pixels."""
        if not curve.has_both:
            return float("nan")
        rate, overlap = curve.pro_corners
        within = int(np.searchsorted(rate, self.limit, side="right"))
        x = np.append(rate[:within], self.limit)
        y = np.append(overlap[:within], np.interp(self.limit, rate, overlap))
        return float(np.dot(np.diff(x), y[1:] + y[:-1]) / 2 / self.limit)
