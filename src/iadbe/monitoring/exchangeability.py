"""A test, valid at any time, of whether images still come from where those of the calibration came from.

Paper: Vovk, Petej, Nouretdinov, Ahlberg, Carlsson and Gammerman, "Retrain or not retrain: conformal test martingales
    for change-point detection", COPA 2021, 2102.10439. Each image gets a smoothed conformal p-value: its rank among
    all images so far, those of the calibration included, ties broken at random. Under exchangeability these are
    independent and uniform. A bet against that (the Simple Jumper: capital on 1 + e (p - 1/2) for several e, a share of
    which is spread anew before each image) multiplies its capital by a factor whose expectation is 1. The
    Shiryaev-Roberts statistic of a sequence of such factors, R <- (R + 1) * factor, minus the number of factors is a
    martingale, so the mean time until R reaches c is at least c, and R reaches c within n steps with a probability of
    at most n / c.
Differs:
    * A factor is that of a whole hour, so c = 1 000 means at most one false alarm in 1 000 hours on average.
    * Values are bins (:mod:`.reference`). A function of exchangeable values is exchangeable, so nothing is lost but
      what the bins do not tell apart.
    * The order of the images within an hour is drawn, and so is a sample of them where there are more than ``SAMPLE``:
      exchangeable images stay exchangeable.
    * Several channels: the alarm is on the mean of their R, which is again such a statistic.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ALARM = 1000.0  # R, and so the mean number of hours between false alarms at least
SAMPLE = 200  # images of an hour that are tested
BETS = (-1.8, -0.9, 0.0, 0.9, 1.8)  # below 2, so that capital never falls to 0
LARGEST = 1e300  # R goes no higher
JUMP = 0.01  # share of the capital that is spread over all bets before each image


class ChangeDetector:
    """The Shiryaev-Roberts statistic of one channel, hour by hour."""

    def __init__(self, counts: Sequence[int]) -> None:
        """Start after a calibration with so many images in each bin."""
        self.statistic = 0.0
        self._counts = [int(n) for n in counts]
        self._total = sum(self._counts)
        self._capital = [1 / len(BETS)] * len(BETS)

    def update(self, counts: Sequence[int] | np.ndarray, rng: np.random.Generator) -> float:
        """Take the images of an hour, by bin, and return the statistic after it."""
        bins = _drawn(np.asarray(counts, np.int64), rng)
        factor = 1.0
        for bin_, tie in zip(bins.tolist(), rng.random(len(bins)).tolist(), strict=True):
            factor *= self._factor(self._p(bin_, tie))
        self.statistic = min((self.statistic + 1) * factor, LARGEST)
        return self.statistic

    def _p(self, bin_: int, tie: float) -> float:
        """Return the smoothed conformal p-value of an image and count it: small for a high value."""
        self._counts[bin_] += 1
        self._total += 1
        return (sum(self._counts[bin_ + 1 :]) + tie * self._counts[bin_]) / self._total

    def _factor(self, p: float) -> float:
        """Bet on one p-value; return what the capital is multiplied by."""
        spread = JUMP / len(BETS)
        won = [((1 - JUMP) * own + spread) * (1 + e * (p - 0.5)) for own, e in zip(self._capital, BETS, strict=True)]
        factor = sum(won)
        self._capital = [own / factor for own in won]
        return factor


def _drawn(counts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the bins of an hour's images in random order, of ``SAMPLE`` of them at most."""
    return rng.permutation(np.repeat(np.arange(len(counts)), counts))[:SAMPLE]
