"""Area under the per-image overlap curve (AUPIMO): recall of each defective image at very low false positive rates.

Formula: the recall of one defective image, averaged over the logarithm of the false positive rate from 1e-5 to 1e-4.
All images share the rate: the mean over good images of their own rates. The metric is the mean over defective images.
Paper: Bertoldo et al., "AUPIMO: Redefining Visual Anomaly Detection Benchmarks with High Speed and Low Tolerance",
2401.01984 (BMVC 2024).
Differs:

* Exact. A recall belongs to the lowest threshold whose rate is not above the wanted one, so the integrand is constant
  between the scores of good pixels. Only the few highest of these are kept. The authors' code samples 300 000
  thresholds and interpolates linearly.
* With fewer than 100 000 good pixels, a rate below one pixel is the rate of no pixel.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import numpy as np

from iadbe.curves.curve import Curve
from iadbe.errors import BadConfig
from iadbe.metric import Metric


class AUPIMO(Metric):
    """In [0, 1], higher is better. Chance is close to 0."""

    paper: ClassVar[str] = "Bertoldo et al., BMVC 2024"
    year: ClassVar[int] = 2024
    version: ClassVar[int] = 1
    of: ClassVar[frozenset[str]] = frozenset({"pixel"})
    higher_is_better: ClassVar[bool] = True

    def __init__(self, low: float = 1e-5, high: float = 1e-4) -> None:
        """Choose the range of false positive rates.

        Args:
            low: least false positive rate on good images, above 0
            high: greatest one, above ``low`` and below 1
        """
        if not 0.0 < low < high < 1.0:
            raise BadConfig(f"aupimo.low and high are {low} and {high}, but rates must be 0 < low < high < 1.")
        self.low = low
        self.high = high

    def value(self, curve: Curve) -> float:
        """Return the mean over defective images; nan where there is none, or no good one."""
        each = self.of_each(curve)
        return float(each.mean()) if each.size else float("nan")

    def of_each(self, curve: Curve) -> np.ndarray:
        """Return (M,) the value of each defective image, in order; (0,) where there is no good image."""
        defective = np.array([one.truth.any() for one in curve.maps()], bool)
        sizes = [one.counted_scores.size for one, has in zip(curve.maps(), defective, strict=True) if not has]
        if not (count := sum(sizes)):
            return np.zeros(0)
        first, last = int(self.low * count), int(self.high * count)  # false positive pixels that the rates allow
        top = _highest((curve.map(int(i)).counted_scores for i in np.flatnonzero(~defective)), last + 1)
        edges = np.arange(first, last + 2) / count
        edges[0], edges[-1] = self.low, self.high
        width = np.diff(np.log(edges))
        width /= width.sum()
        recalls = (_recall(curve.map(int(i)).defect_scores, top[first:]) for i in np.flatnonzero(defective))
        return np.array([recall @ width for recall in recalls])


def _highest(maps: Iterable[np.ndarray], count: int) -> np.ndarray:
    """Return the ``count`` highest scores of some maps, in falling order, in little more memory than that."""
    kept = np.zeros(0, np.float32)
    for found in maps:
        found = found[found > kept.min()] if kept.size == count else found
        if found.size:
            kept = np.concatenate([kept, found])
            kept = np.partition(kept, kept.size - count)[-count:] if kept.size > count else kept
    return np.sort(kept)[::-1]


def _recall(defect: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Return the recall of an image's defect pixels strictly above each threshold."""
    defect = np.sort(defect)
    return 1.0 - np.searchsorted(defect, thresholds, side="right") / defect.size
