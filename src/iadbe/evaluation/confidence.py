"""Paired bootstrap of image metrics: is the difference between two detectors significant on these test images?

Paper: Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 16: paired resampling for a difference. The
interval of a single number is in :mod:`iadbe.evaluation.intervals`.

The draws follow from the images' ids alone, so two detectors that were tested on the same images are resampled alike
and their difference is a paired one. Several seeds are averaged within each draw: the test is about the images, not
about training again. Every metric that is a function of counts (:class:`iadbe.metric.CountMetric`) is computed for all
draws at once.

Differs:

* Stratified: good and defective images are drawn separately, because their numbers belong to the test set's design.
* Dependent images (:attr:`iadbe.types.Sample.group`) are drawn group by group, good and defective ones separately. A
  draw's weights are scaled so that their sum stays the number of images.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from iadbe.curves.curve import Counts
from iadbe.metric import CountMetric
from iadbe.metrics.auroc import AUROC

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 2**22  # weights in memory at a time
LARGE = 2**14  # images of a class, from which counts have 64 bits
PAIRS = 100  # times more pairs than images, above which an AUROC is computed from sorted scores


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


class CategoryScores(NamedTuple):
    """The test images of one category, by id, and one detector's scores of them."""

    ids: tuple[str, ...]
    truth: np.ndarray  # (N,) bool: defective
    score: np.ndarray  # (S, N): one row per seed
    groups: tuple[str, ...] = ()  # (N,) images with the same name are dependent; empty: all are independent


def category_scores(
    images: Iterable[tuple[str, bool, Sequence[float]]], groups: Mapping[str, str] | None = None
) -> CategoryScores:
    """Make the scores of a category from (id, is defective, score per seed), in any order.

    ``groups`` has the group of each dependent image by id; an image without one is a group of its own.
    """
    rows = sorted(images)
    ids = tuple(i for i, _, _ in rows)
    scores = np.array([s for _, _, s in rows], dtype=np.float64)
    named = groups or {}
    own = tuple(f"group {named[i]}" if named.get(i) else f"image {i}" for i in ids) if any(named.values()) else ()
    return CategoryScores(ids, np.array([t for _, t, _ in rows], dtype=bool), scores.T.reshape(-1, len(ids)), own)


def auroc(case: CategoryScores) -> float:
    """Return the mean over seeds of the AUROC, or nan where a class is missing."""
    good, bad = int((~case.truth).sum()), int(case.truth.sum())
    if not (good and bad):
        return float("nan")
    return float(_weighted(case, np.ones((1, good), int), np.ones((1, bad), int))[0])


def bootstrap(
    cases: Sequence[CategoryScores], seed: int = 0, resamples: int = RESAMPLES, metric: CountMetric | None = None
) -> np.ndarray:
    """Return (resamples,) values of an image metric (default: AUROC), each the mean over the cases with both classes.

    The draws are the same for every metric. The values are nan without a case, and where all good or all defective
    images of a case belong to one group: then nothing can be inferred.
    """
    return bootstrap_all([cases], seed, resamples, metric)[0]


def bootstrap_all(
    detectors: Sequence[Sequence[CategoryScores]], seed: int = 0, resamples: int = RESAMPLES,
    metric: CountMetric | None = None, check: Callable[[], None] = lambda: None,
) -> list[np.ndarray]:  # fmt: skip
    """Return :func:`bootstrap` of the cases of each detector, the same images one after the other: draws are shared.

    ``check`` is called before each case; it may raise.
    """
    values: list[dict[int, np.ndarray]] = [{} for _ in detectors]
    cases = ((c, d, n) for d, own in enumerate(detectors) for n, c in enumerate(own))
    usable = [(c, d, n) for c, d, n in cases if c.truth.any() and not c.truth.all()]
    for case, detector, number in sorted(usable, key=lambda u: (u[0].ids, u[0].groups)):
        check()
        values[detector][number] = _resampled(case, seed, resamples, metric or AUROC())
    empty = np.full(resamples, np.nan)
    return [np.mean([v for _, v in sorted(own.items())], axis=0) if own else empty for own in values]


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the interval between the outer quantiles of resampled values or differences."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def differ_significantly(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> bool:
    """Return whether two detectors, resampled with the same seed, differ: the interval of the difference excludes 0."""
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return False
    low, high = percentile_interval(first - second, level)
    return bool(low > 0 or high < 0)


def _resampled(case: CategoryScores, seed: int, resamples: int, metric: CountMetric) -> np.ndarray:
    names = (str(seed), *case.ids, *case.groups)
    entropy = int.from_bytes(hashlib.sha256("\n".join(names).encode("utf-8", "surrogatepass")).digest()[:8], "big")
    good, bad = _positions(case, False), _positions(case, True)
    if case.groups and 1 in (good[1].size, bad[1].size):
        return np.full(resamples, np.nan)
    values = []
    for drawn_good, drawn_bad in _draws(entropy, good[1].size, bad[1].size, resamples):
        weights = (_expanded(drawn_good, *good), _expanded(drawn_bad, *bad))
        values.append(_weighted(case, *weights, metric))
    return np.concatenate(values)


def _positions(case: CategoryScores, is_bad: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return (the number of each image's group, the size of each group) of one class."""
    chosen = np.flatnonzero(case.truth == is_bad)
    if not case.groups:
        return np.arange(chosen.size), np.ones(chosen.size, dtype=int)
    _, number, sizes = np.unique([case.groups[i] for i in chosen], return_inverse=True, return_counts=True)
    return number, sizes


def _expanded(drawn: np.ndarray, number: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return (R, N) weights of images from (R, G) draws of groups; each row sums to the number of images."""
    if number.size == sizes.size and (np.diff(number) == 1).all():
        return drawn
    images = drawn.T[number].T
    return images if (sizes == 1).all() else images * (number.size / (drawn @ sizes))[:, None]


@lru_cache(maxsize=128)  # all detectors and metrics of a comparison use the same draws
def _draws(entropy: int, good: int, bad: int, resamples: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return how often each of ``good`` and ``bad`` groups is drawn, (R, good) and (R, bad), in chunks."""
    rng = np.random.default_rng(entropy)
    step = max(1, CHUNK // (good + bad))
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn_good = rng.multinomial(good, np.full(good, 1 / good), size=count)
        drawn_bad = rng.multinomial(bad, np.full(bad, 1 / bad), size=count)
        parts.append((_by_image(drawn_good), _by_image(drawn_bad)))
    return tuple(parts)


def _by_image(drawn: np.ndarray) -> np.ndarray:
    """Return (R, N) numbers with those of an image side by side: sums over images then add whole vectors."""
    return np.ascontiguousarray(drawn.T, dtype=np.uint8 if drawn.max() < 256 else np.int32).T


def _weighted(
    case: CategoryScores, good_weights: np.ndarray, bad_weights: np.ndarray, metric: CountMetric | None = None
) -> np.ndarray:
    """Return (R,) values, mean over seeds, with images counted ``good_weights`` (R, G) and ``bad_weights`` (R, B).

    Each row of weights has the same sum, the number of images.
    """
    metric = metric or AUROC()
    positives, negatives = bad_weights.shape[1], good_weights.shape[1]
    if type(metric) is AUROC and positives * negatives <= PAIRS * (positives + negatives) * len(case.score):
        return _weighted_auroc(case, good_weights, bad_weights)
    total = np.zeros(len(good_weights))
    for score in case.score:
        good, bad = score[~case.truth], score[case.truth]
        rising, falling = np.argsort(good, kind="stable"), np.argsort(-bad, kind="stable")
        good = good[rising]
        thresholds, first = np.unique(-bad[falling], return_index=True)
        ends = np.append(first[1:], bad.size)  # where ties end
        tp = _cumulated(bad_weights.T[falling])[ends]
        above = negatives - _cumulated(good_weights.T[rising])  # good images above the lowest 0 to N
        fp = above[np.searchsorted(good, -thresholds, side="left")]
        fp_above = above[np.searchsorted(good, -thresholds, side="right")]
        total += metric.from_counts(Counts(tp.T, fp.T, fp_above.T, positives, negatives))
    return total / len(case.score)


def _weighted_auroc(case: CategoryScores, good_weights: np.ndarray, bad_weights: np.ndarray) -> np.ndarray:
    """Return :func:`_weighted`'s AUROC from the matrix of all pairs of images, summed over the seeds first.

    All sums of whole weights are whole numbers below 2²⁴ in 32 bits, else below 2⁵³ in 64: they are exact.
    """
    good, bad = case.score[:, ~case.truth, None], case.score[:, None, case.truth]
    lost = (good > bad).sum(0) + (good >= bad).sum(0)  # (G, B) discordant twice, ties once
    most = 2 * lost.size * len(case.score)
    kind: Any = np.float32 if most < 2**24 and np.issubdtype(good_weights.dtype, np.integer) else np.float64
    pairs, drawn_good, drawn_bad = (np.asarray(a.T, dtype=kind) for a in (lost, good_weights, bad_weights))
    values: np.ndarray = 1.0 - np.einsum("br,br->r", pairs @ drawn_good, drawn_bad).astype(np.float64) / most
    return values


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Return (N + 1, R) sums of the first 0 to N weights (N, R); those of scaled weights are rounded to 9 digits."""
    exact = np.issubdtype(weights.dtype, np.integer)
    whole = np.int32 if len(weights) < LARGE else np.int64  # metrics multiply two counts
    sums = np.zeros((len(weights) + 1, weights.shape[1]), dtype=whole if exact else np.float64)
    np.cumsum(weights, axis=0, dtype=sums.dtype, out=sums[1:])
    return sums if exact else sums.round(9)
