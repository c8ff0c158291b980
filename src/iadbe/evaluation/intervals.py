"""95 % confidence intervals of metrics of image scores: the score interval of a binormal model.

Papers: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927, for the score
interval; Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", part 2,
Statistics in Medicine 25, 2006, method 5, for the same with an AUROC; Hanley and McNeil, Radiology 143, 1982, for the
variance of an AUROC; Venzon and Moolgavkar, Applied Statistics 37, 1988, for the range of a function over a region;
Kish, "Survey Sampling", 1965, for the effective sample size of clusters.

Model: scores of good images are N(0, 1), those of defective images N(d, 1), with one parameter d, the separation. For a
test set of n good and m defective images a metric has the mean μ(d) and the standard deviation σ(d). The interval of an
observed value v is the range of μ(d) over all d with |v - μ(d)| <= z σ(d), z = 1.96. For the AUROC both follow from a
formula. For other metrics they are simulated with a fixed seed, once for each (n, m).

Estimand: the mean of the metric over test sets with these numbers of images. For AUROC that is the value of infinitely
many images, for AP nearly so. The mean F1max of few images is higher than that of many.

Several categories: the interval of the mean over K categories is the range of the mean of μ_k(d_k) over all (d_1, ...,
d_K) with Σ_k ((v_k - μ_k(d_k)) / σ_k(d_k))² <= z². Several seeds on the same images are averaged first: exact where the
seeds agree, conservative where they differ. Images of one group count as one: σ is that of n²/Σ_g n_g² good images (and
likewise defective ones) for groups of n_g.

Monotone: a better ranking of the same images never has a lower bound, or an upper bound, that is lower. A bound depends
on the values v_k alone and never falls as one of them rises: for each split of z² over the categories, the bound of a
category is the first d at which a function that does not depend on v reaches v.

Differs:

* The standard deviation is that of a binormal model with equal variances, for every metric. Newcombe uses the variance
  of two exponential distributions.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from iadbe import system
from iadbe.cache import cache_folder
from iadbe.curves import curve
from iadbe.curves.curve import Counts
from iadbe.evaluation.confidence import LEVEL, CategoryScores, Interval
from iadbe.metric import CountMetric
from iadbe.metrics.auroc import AUROC

SEPARATIONS = np.array([-3, -2, -1, 0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4.5, 5, 5.5, 6.5, 9])  # that are simulated
GRID = np.linspace(-3.0, 9.0, 601)  # of separations, to which mean and deviation are interpolated
SHARES = 32  # equal shares of z², split over the categories
IMAGES = 150_000  # simulated for each separation, in test sets of the wanted size
MIN_SETS, MAX_SETS = 200, 4000  # simulated test sets
SEED = 20250101


class Moments(NamedTuple):
    """Mean and standard deviation of a metric at rising separations, negated where lower is better."""

    mean: np.ndarray  # (P,), rising
    deviation: np.ndarray  # (P,)


def score_interval(cases: Sequence[CategoryScores], metric: CountMetric, level: float = LEVEL) -> Interval | None:
    """Return the interval of the mean of ``metric`` over the cases with both classes; None where there is no case."""
    usable = [c for c in cases if c.truth.any() and not c.truth.all() and len(c.score)]
    sign = 1.0 if metric.higher_is_better else -1.0
    values = [sign * float(np.mean([metric(c.truth, s) for s in c.score])) for c in usable]
    if not usable or not np.isfinite(values).all():
        return None
    below, above = [], []
    for one, value in zip(usable, values, strict=True):
        bad = int(one.truth.sum())
        design = _Design((type(metric), metric.label), (one.truth.size - bad, bad), _effective(one), level, metric)
        lower, upper = _bounds(design)
        below.append(lower.distances(value))
        above.append(upper.distances(-value))
    mean = float(np.mean(values))
    ends = (sign * (mean - _largest_sum(below) / len(values)), sign * (mean + _largest_sum(above) / len(values)))
    return Interval(round(min(ends), 12) + 0.0, round(max(ends), 12) + 0.0)  # no -1e-20, no -0.0


def auroc_interval(cases: Sequence[CategoryScores], level: float = LEVEL) -> Interval | None:
    """Return the interval of the mean AUROC over the cases with both classes; None where there is no case."""
    return score_interval(cases, AUROC(), level)


def moments(metric: CountMetric, good: int, bad: int) -> Moments:
    """Return the metric's mean and standard deviation over test sets of the model, at the separations of the grid."""
    compute = _auroc_moments if isinstance(metric, AUROC) else _simulated_moments
    try:
        file = _kept_file(metric, good, bad)
    except (OSError, TypeError):  # a metric that was typed into an interpreter has no file
        return compute(metric, good, bad)
    with suppress(OSError, ValueError, EOFError):
        kept = np.load(file, allow_pickle=False)
        if kept.shape == (2, GRID.size) and kept.dtype == np.float64 and np.isfinite(kept).all():
            return Moments(*kept)
    found = compute(metric, good, bad)
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        for old in file.parent.glob(f"{file.name.rpartition('-')[0]}-*.npy"):
            old.unlink(missing_ok=True)
        staging = file.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        with staging.open("wb") as opened:
            np.save(opened, np.stack(found))
        system.replace(staging, file)
    return found


def _kept_file(metric: CountMetric, good: int, bad: int) -> Path:
    """Return where the moments of test sets of this size are kept, in the folder for cached files.

    Computing those of a data set's categories, or importing what does it, takes longer than a table of them. A name
    ends in a digest of what the numbers follow from: the code of this file, of the metric and of its counts.
    """
    sources = (Path(__file__), Path(curve.__file__), Path(inspect.getfile(type(metric))))
    code = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources)).hexdigest()[:16]
    return cache_folder() / "moments" / f"{re.sub(r'[^A-Za-z0-9_.]+', '_', metric.label)}-{good}-{bad}-{code}.npy"


def simulated_counts(scores: np.ndarray, good: int, separation: float) -> Counts:
    """Return the counts of test sets (R, N) float32: ``separation`` is added to all but the first ``good`` scores.

    One sort finds the order of scores and classes: a float's last bit is set for a defective image, else cleared.
    """
    count, size = scores.shape
    bad = size - good
    marked = scores.copy()
    marked[:, good:] += np.float32(separation)
    bits = marked.view(np.int32)
    bits[:, :good] &= ~1
    bits[:, good:] |= 1
    marked.sort(axis=1)
    place = np.flatnonzero(bits[:, ::-1] & 1).reshape(count, bad) - size * np.arange(count)[:, None]  # from the top
    tp = np.broadcast_to(np.arange(1, bad + 1), (count, bad))
    fp = place - np.arange(bad)
    return Counts(tp, fp, fp, bad, good)


@dataclass(frozen=True)
class _Design:
    """All that bounds depend on; two metrics of one class with one label are equal."""

    key: tuple[type[CountMetric], str]
    size: tuple[int, int]  # good and defective images
    effective: tuple[int, int]  # the same, of independent images
    level: float
    metric: CountMetric = field(compare=False)


class _Bounds:
    """Lower bounds of a category for each share 0, 1/SHARES ... 1 of z²."""

    def __init__(self, mean: np.ndarray, deviation: np.ndarray, z: float) -> None:
        root = np.sqrt(np.arange(SHARES + 1) / SHARES)
        self.mean = mean
        self.reached = np.maximum.accumulate(mean + z * root[:, None] * deviation, axis=1)  # (SHARES + 1, P)

    def distances(self, value: float) -> np.ndarray:
        """Return (SHARES + 1,) value - bound, at least 0. The bound never falls as the value rises."""
        at = np.sum(self.reached < value, axis=1)  # the first separation at which the value is not too high
        last = self.mean.size - 1
        right = np.minimum(at, last)
        left = np.maximum(right - 1, 0)
        row = np.arange(SHARES + 1)
        low, high = self.reached[row, left], self.reached[row, right]
        part = np.clip((value - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0)
        bound = self.mean[left] + part * (self.mean[right] - self.mean[left])
        bound = np.where(at > last, self.mean[last], np.where(at == 0, self.mean[0], bound))
        found: np.ndarray = np.maximum(value - bound, 0.0)
        return found


@lru_cache(maxsize=256)
def _bounds(design: _Design) -> tuple[_Bounds, _Bounds]:
    """Return the lower bounds, and the upper ones as lower bounds of the negated metric."""
    mean, deviation = moments(design.metric, *design.size)
    if design.effective != design.size:
        deviation = moments(design.metric, *design.effective).deviation
    z = NormalDist().inv_cdf((1 + design.level) / 2)
    return _Bounds(mean, deviation, z), _Bounds(-mean[::-1], deviation[::-1], z)


def _effective(case: CategoryScores) -> tuple[int, int]:
    """Return the numbers of good and of defective images, each group of dependent images counted as one (Kish)."""
    found = []
    for is_bad in (False, True):
        count = int((case.truth == is_bad).sum())
        groups = [g for g, t in zip(case.groups, case.truth, strict=True) if t == is_bad] if case.groups else []
        squares = sum(groups.count(g) ** 2 for g in set(groups))
        found.append(round(count**2 / squares) if squares else count)
    return found[0], found[1]


def _largest_sum(distances: Sequence[np.ndarray]) -> float:
    """Return the largest sum of distances over all splits of the SHARES over the categories."""
    best = distances[0]
    rest = np.arange(SHARES + 1)[:, None] - np.arange(SHARES + 1)  # (shares used, shares of the next category)
    for distance in distances[1:]:
        best = np.where(rest >= 0, best[rest] + distance, -np.inf).max(axis=1)
    return float(best[-1])


def _auroc_moments(_: CountMetric, good: int, bad: int) -> Moments:
    """Return mean and standard deviation of the AUROC, by Hanley and McNeil's formula (2).

    μ = Φ(h), h = d / √2. Two defective images both score below one good image with the probability
    Φ₂(-h, -h; 1/2) = Φ(-h) - 2 T(h, 1/√3), T being Owen's function; one defective below two good likewise.
    """
    from scipy.special import ndtr, owens_t

    h = GRID / np.sqrt(2)
    wrong = ndtr(-h)
    both = wrong - 2 * owens_t(h, 1 / np.sqrt(3))
    variance = (wrong * (1 - wrong) + (good + bad - 2) * (both - wrong**2)) / (good * bad)
    return Moments(1 - wrong, np.sqrt(np.maximum(variance, 0.0)))


def _simulated_moments(metric: CountMetric, good: int, bad: int) -> Moments:
    """Return mean and standard deviation over simulated test sets, the same normal numbers at each separation."""
    rng = np.random.default_rng([SEED, good, bad])
    count = int(np.clip(IMAGES // (good + bad), MIN_SETS, MAX_SETS))
    scores = rng.standard_normal((count, good + bad), dtype=np.float32)
    sign = 1.0 if metric.higher_is_better else -1.0
    found = [sign * metric.from_counts(simulated_counts(scores, good, d)) for d in SEPARATIONS]
    mean = np.maximum.accumulate([np.mean(f) for f in found])
    deviation = monotone_cubic(SEPARATIONS, np.array([np.std(f) for f in found]), GRID)
    return Moments(monotone_cubic(SEPARATIONS, mean, GRID), np.maximum(deviation, 0.0))


def monotone_cubic(x: np.ndarray, y: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Interpolate y (P,) over rising x (P,) without overshooting (Fritsch and Butland, SIAM J. Sci. Comput., 1984).

    The slope at a point is the weighted harmonic mean of the neighbouring secants, 0 at an extremum; at the ends it is
    that of a parabola, limited. ``scipy.interpolate.PchipInterpolator`` is the same, but takes half a second to import.
    """
    width, secant = np.diff(x), np.diff(y) / np.diff(x)
    left, right = 2 * width[1:] + width[:-1], width[1:] + 2 * width[:-1]
    same = secant[:-1] * secant[1:] > 0
    before, after = (np.where(same, s, 1.0) for s in (secant[:-1], secant[1:]))
    slope = np.zeros_like(y)
    slope[1:-1] = np.where(same, (left + right) / (left / before + right / after), 0.0)
    for end, (a, b) in ((0, (0, 1)), (-1, (-1, -2))):
        parabola = ((2 * width[a] + width[b]) * secant[a] - width[a] * secant[b]) / (width[a] + width[b])
        if parabola * secant[a] <= 0:
            parabola = 0.0
        elif secant[a] * secant[b] <= 0 and abs(parabola) > 3 * abs(secant[a]):
            parabola = 3 * secant[a]
        slope[end] = parabola
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(width) - 1)
    h, t = width[piece], (at - x[piece]) / width[piece]
    found: np.ndarray = (
        (1 + 2 * t) * (1 - t) ** 2 * y[piece]
        + t * (1 - t) ** 2 * h * slope[piece]
        + t**2 * (3 - 2 * t) * y[piece + 1]
        + t**2 * (t - 1) * h * slope[piece + 1]
    )
    return found
