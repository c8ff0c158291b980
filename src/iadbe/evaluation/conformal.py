"""Rates with guarantees: conformal thresholds from good images, and exact intervals of measured rates.

Papers: split conformal prediction: Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; the
distribution of the true rate given the sample: Vovk, "Conditional validity of inductive conformal predictors", ACML
2012, 1209.2673; the number of images for a share with a confidence: Wilks, Annals of Mathematical Statistics 12, 1941;
intervals of measured rates: Clopper and Pearson, Biometrika 26, 1934.

Guarantee: the n good values and future ones must be exchangeable. With a wanted share α, the threshold lies just above
the k-th smallest value, with k = ceil((n + 1)(1 - α)). Then the rate of values at or above it is at most
(n + 1 - k) / (n + 1) <= α on average over such samples. For one sample it has the distribution Beta(n + 1 - k, k), or
less where values tie. With a confidence γ, k is the smallest number for which the γ quantile of that distribution is at
most α: then of all such calibrations a share γ keeps to α. 59 good images of which the threshold rejects none give 5 %,
149 give 2 % and 299 give 1 %, each with 95 % confidence.

Differs:

* A part is rejected from the threshold on (``>=``). So the threshold is the next float32 above the paper's quantile: a
  part that ties with the quantile passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from iadbe.curves.curve import allowed_count
from iadbe.evaluation.confidence import LEVEL


@dataclass(frozen=True, slots=True)
class Rate:
    """A false positive or false negative rate, with its 95 % interval."""

    value: float  # measured; where guaranteed, an upper bound of its mean over such samples
    low: float
    high: float
    guaranteed: bool = False  # by the conformal threshold: ``low`` is 0 and ``high`` one-sided
    confidence: float | None = None  # of a guarantee that is not on average: the rate is at most ``high`` with it

    def text(self, count: int, what: str, unit: str = "images") -> str:
        """Return a sentence about ``count`` images, or groups of images, of a kind ("good")."""
        if self.confidence is not None:
            return (
                f"at most {percent(self.high)} with {percent(self.confidence)} confidence, by {count} {what} {unit}; "
                f"at most {percent(self.value)} on average over such samples"
            )
        if self.guaranteed:
            return (
                f"at most {percent(self.value)} on average over such samples of {count} {what} {unit}; "
                f"in this one at most {percent(self.high)} with {percent(LEVEL)} confidence"
            )
        hits, between = round(self.value * count), f"{percent(self.low)} to {percent(self.high)}"
        return f"{hits} of {count} {what} {unit}, {percent(self.value)} ({percent(LEVEL)} interval {between})"


def conformal_threshold(values: np.ndarray, share: float, confidence: float | None = None) -> float:
    """Return the lowest threshold with at most ``share`` of new values at or above it.

    On average over calibrations, or with a ``confidence``. There are at least :func:`images_needed` values.
    """
    return above(np.sort(values)[len(values) - _allowed_rank(share, len(values), confidence)])


def images_needed(share: float, confidence: float | None = None) -> int:
    """Return the smallest number of good images that can guarantee this share, on average or with a confidence."""
    if confidence is None:
        return math.ceil(1 / share - 1e-9) - 1
    return max(1, math.ceil(math.log(1 - confidence) / math.log1p(-share) - 1e-9))


def guaranteed_rate(share: float, count: int, confidence: float | None = None) -> Rate:
    """Return the rate that :func:`conformal_threshold` of ``count`` values keeps to."""
    rank = _allowed_rank(share, count, confidence)
    high = _beta_quantile(rank, count + 1 - rank, LEVEL if confidence is None else confidence)
    return Rate(rank / (count + 1), 0.0, high, guaranteed=True, confidence=confidence)


def clopper_pearson(hits: int, count: int, level: float = LEVEL) -> Rate:
    """Return a rate with its Clopper-Pearson interval."""
    rest = (1 - level) / 2
    low = _beta_quantile(hits, count - hits + 1, rest) if hits else 0.0
    high = _beta_quantile(hits + 1, count - hits, 1 - rest) if hits < count else 1.0
    return Rate(hits / count, low, high)


def above(value: np.floating[Any]) -> float:
    """Return the next float32 above a value."""
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def percent(share: float) -> str:
    """Write a share in percent, with three digits."""
    return f"{100 * share:.3g} %"


def _allowed_rank(share: float, count: int, confidence: float | None) -> int:
    """Return from which rank on, counted from the highest of ``count`` values, a threshold above it keeps to ``share``.

    This is n + 1 - k: one more than the number of these values at or above the threshold.
    """
    if confidence is None:
        return allowed_count(share, count + 1)
    from scipy.special import betainc  # here, because it takes a third of a second to import

    ranks = np.arange(1, count + 1)
    return int((betainc(ranks, count + 1 - ranks, share) >= confidence - 1e-12).sum())  # falls with the rank


def _beta_quantile(first: float, second: float, share: float) -> float:
    """Return the quantile of a beta distribution."""
    from scipy.special import betaincinv  # here, because it takes a third of a second to import

    return float(betaincinv(first, second, share))
