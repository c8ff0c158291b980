"""How sure an image AUROC, or another number of image scores, is, given that there were only so many test images.

Paper: Efron and Tibshirani, "An Introduction to the Bootstrap", chapters 13 and 16: percentile intervals, and paired
resampling for a difference.
Differs: stratified, good and defective images are drawn apart, for their numbers belong to the test set's design.
The draws follow from the images' ids alone, so two detectors that were tested on the same images are resampled
alike and their difference is a paired one. Several seeds are averaged within each draw: the interval is about the
images, not about training again. Where every image is in the right place the bootstrap sees no spread at all; then
the range is that of the AUROCs under which so many images would all be right by luck in 1 of 20 cases. Any metric
that is a function of counts (:class:`iadbe.metric.CountMetric`) is resampled in the same way, all draws at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from iadbe.curves.curve import Counts
from iadbe.metric import CountMetric
from iadbe.metrics.auroc import AUROC

RESAMPLES = 1000
LEVEL = 0.95
CHUNK = 2**22  # weights held at a time


class Interval(NamedTuple):
    """A range that holds the true value in LEVEL of all cases."""

    low: float
    high: float


class CategoryScores(NamedTuple):
    """One category's test images, by id, and what one detector said of them."""

    ids: tuple[str, ...]
    truth: np.ndarray  # (N,) bool: defective
    score: np.ndarray  # (S, N): one row per seed


def category_scores(images: Iterable[tuple[str, bool, Sequence[float]]]) -> CategoryScores:
    """Make a case of (id, is defective, score per seed), in any order."""
    rows = sorted(images)
    ids = tuple(i for i, _, _ in rows)
    scores = np.array([s for _, _, s in rows], dtype=np.float64)
    return CategoryScores(ids, np.array([t for _, t, _ in rows], dtype=bool), scores.T.reshape(-1, len(ids)))


def auroc(case: CategoryScores) -> float:
    """Return the mean over seeds of the AUROC, or nan where a class is missing."""
    good, bad = int((~case.truth).sum()), int(case.truth.sum())
    if not (good and bad):
        return float("nan")
    return float(_weighted(case, np.ones((1, good), int), np.ones((1, bad), int))[0])


def bootstrap(
    cases: Sequence[CategoryScores], seed: int = 0, resamples: int = RESAMPLES, metric: CountMetric | None = None
) -> np.ndarray:
    """Return (resamples,) values of an image metric, AUROC unless told, each the mean over the cases with both classes.

    The draws are the same for every metric.
    """
    usable = [c for c in cases if c.truth.any() and not c.truth.all()]
    if not usable:
        return np.full(resamples, np.nan)
    return np.mean([_resampled(c, seed, resamples, metric or AUROC()) for c in usable], axis=0)


def percentile_interval(samples: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the range between the outer quantiles of resampled values or differences."""
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def auroc_interval(cases: Sequence[CategoryScores], samples: np.ndarray, level: float = LEVEL) -> Interval:
    """Return the range of the mean AUROC over ``cases``, from what :func:`bootstrap` gave for them."""
    found = percentile_interval(samples, level)
    if found.low < 1.0:
        return found
    # of a case with m = min(good, bad) pairs that share no image, all are right with probability AUROC^m at most
    pairs = [min(int(c.truth.sum()), int((~c.truth).sum())) for c in cases]
    pairs = [m for m in pairs if m]
    chance = 1 - level
    spread_evenly = chance ** (1 / sum(pairs))
    all_in_one = 1 - (1 - chance ** (1 / min(pairs))) / len(pairs)
    return Interval(min(spread_evenly, all_in_one), 1.0)


def differ_significantly(first: np.ndarray, second: np.ndarray, level: float = LEVEL) -> bool:
    """Say whether two detectors, resampled with the same seed, can be told apart: 0 is no likely difference."""
    low, high = percentile_interval(first - second, level)
    return bool(low > 0 or high < 0)


def _resampled(case: CategoryScores, seed: int, resamples: int, metric: CountMetric) -> np.ndarray:
    digest = hashlib.sha256("\n".join((str(seed), *case.ids)).encode("utf-8", "surrogatepass")).digest()
    good, bad = int((~case.truth).sum()), int(case.truth.sum())
    draws = _draws(int.from_bytes(digest[:8], "big"), good, bad, resamples)
    return np.concatenate([_weighted(case, drawn_good, drawn_bad, metric) for drawn_good, drawn_bad in draws])


@lru_cache(maxsize=32)  # a benchmark asks for the same draws detector after detector, metric after metric
def _draws(entropy: int, good: int, bad: int, resamples: int) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return how often each image is drawn, (R, good) and (R, bad), in chunks."""
    rng = np.random.default_rng(entropy)
    step = max(1, CHUNK // (good + bad))
    parts = []
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        drawn_good = rng.multinomial(good, np.full(good, 1 / good), size=count)
        drawn_bad = rng.multinomial(bad, np.full(bad, 1 / bad), size=count)
        parts.append((drawn_good.astype(np.int32), drawn_bad.astype(np.int32)))
    return tuple(parts)


def _weighted(
    case: CategoryScores, good_weights: np.ndarray, bad_weights: np.ndarray, metric: CountMetric | None = None
) -> np.ndarray:
    """Return (R,) values, mean over seeds, with images counted ``good_weights`` (R, G) and ``bad_weights`` (R, B).

    The weights are whole numbers, each row with the same sum.
    """
    metric = metric or AUROC()
    positives, negatives = int(bad_weights[0].sum()), int(good_weights[0].sum())
    total = np.zeros(len(good_weights))
    for score in case.score:
        good, bad = np.sort(score[~case.truth]), score[case.truth]
        up_to = _cumulated(good_weights[:, np.argsort(score[~case.truth], kind="stable")])  # from the lowest score up
        falling = np.argsort(-bad, kind="stable")
        thresholds, first = np.unique(-bad[falling], return_index=True)
        ends = np.append(first[1:], bad.size)  # where a run of equal scores ends
        tp = _cumulated(bad_weights[:, falling])[:, ends]
        fp = negatives - up_to[:, np.searchsorted(good, -thresholds, side="left")]
        fp_above = negatives - up_to[:, np.searchsorted(good, -thresholds, side="right")]
        total += metric.from_counts(Counts(tp, fp, fp_above, positives, negatives))
    return total / len(case.score)


def _cumulated(weights: np.ndarray) -> np.ndarray:
    """Return (R, N + 1) sums of the first 0 to N weights (R, N)."""
    sums = np.zeros((len(weights), weights.shape[1] + 1), dtype=np.int64)
    np.cumsum(weights, axis=1, out=sums[:, 1:])
    return sums
