"""ROC and overlap curves of a ranking, counted once and exactly for all metrics.

Between two scores of positives only false positives change, so the K distinct scores of the positives are all the
thresholds that matter. The negatives, usually the many, are sorted by value alone, without an index.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np

PART = 2**20  # thresholds that are computed with at a time
EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # scipy's default would separate regions that touch at a corner


class DefectRegion(NamedTuple):
    """One defect on one map, with its saturation (sPRO)."""

    image: int  # position among the maps
    pixels: np.ndarray  # (A,) positions in the flat map, each once
    saturation: float  # pixels that suffice for a full overlap; above 0


class Counts(NamedTuple):
    """Counts at each threshold, in falling order: one curve (K,), or many at once (R, K)."""

    tp: np.ndarray  # int64, true positives: at or above the threshold
    fp: np.ndarray  # false positives: at or above it
    fp_above: np.ndarray  # false positives strictly above it
    positives: int
    negatives: int

    def parts(self) -> Iterator[tuple[Counts, np.ndarray]]:
        """Yield these counts some thresholds at a time, with the positives (..., k) that have exactly each score.

        Native maps of many images have millions of thresholds, and terms of a sum would take as much again each.
        """
        size = max(1, PART // max(1, self.tp[..., 0].size))
        for start in range(0, self.tp.shape[-1], size):
            tp, fp, fp_above = (counts[..., start : start + size] for counts in self[:3])
            before = self.tp[..., start - 1 : start] if start else np.zeros_like(tp[..., :1])
            yield self._replace(tp=tp, fp=fp, fp_above=fp_above), np.diff(tp, prepend=before)


class PixelMap(NamedTuple):
    """One map with its truth. Pixels that do not count are neither defect nor clean."""

    score: np.ndarray  # (H, W)
    truth: np.ndarray  # (H, W) bool: defects, all of which count
    region: np.ndarray | None = None  # (H, W) bool: which pixels count; None: all

    @property
    def defect_scores(self) -> np.ndarray:
        """The scores of the defect pixels."""
        return self.score[self.truth]

    @property
    def clean(self) -> np.ndarray:
        """Which pixels are clean."""
        return ~self.truth if self.region is None else self.region & ~self.truth

    @property
    def counted_scores(self) -> np.ndarray:
        """The scores of all pixels that count, flat."""
        return self.score.ravel() if self.region is None else self.score[self.region]

    @property
    def masked(self) -> np.ndarray:
        """The map with -inf where pixels do not count."""
        return self.score if self.region is None else np.where(self.region, self.score, -np.inf)


class Curve:
    """A ranking of images (N,) or of pixels (N, H, W). Counts are computed on first use and kept.

    Exact on raw scores: no bins, no clamping, no normalisation. Equal scores share a threshold.
    """

    def __init__(
        self,
        truth: np.ndarray,
        score: np.ndarray,
        held_out: np.ndarray | None = None,
        parts: Sequence[DefectRegion] | None = None,
        region: np.ndarray | None = None,
    ) -> None:
        """Take ``truth``, bool, and ``score`` of the same shape, finite. Raises :class:`ValueError` otherwise.

        Neither is copied or changed. Scores other than float32 and float64 are read as float64. ``held_out`` are scores
        (M,) or maps (M, H, W) of good images that were neither learnt nor tested, for metrics that need a threshold.
        ``parts`` are the defects one by one; without them, each 8-connected region of a map is one, to be found whole.
        ``region`` (N, H, W) bool says which pixels count; None: all. The others are neither defect nor clean.
        """
        truth, score = np.asarray(truth), np.asarray(score)
        if truth.dtype != np.bool_:
            raise ValueError(f"truth must be bool, not {truth.dtype}: say first which values of a mask are defect.")
        if truth.shape != score.shape:
            raise ValueError(f"truth is {truth.shape}, but score is {score.shape}: they must have one shape.")
        if truth.ndim not in (1, 3):
            raise ValueError(f"truth and score must be (N,) or (N, H, W), not {truth.shape}.")
        if not np.can_cast(score.dtype, np.float64):
            raise ValueError(f"score must be real numbers, not {score.dtype}.")
        if not np.isfinite(score).all():
            raise ValueError("score must be finite: it holds nan or infinity.")
        if held_out is not None and not np.isfinite(held_out).all():
            raise ValueError("scores of held-out images must be finite: there is nan or infinity.")
        if region is not None and (region.shape != truth.shape or region.dtype != np.bool_ or truth.ndim != 3):
            raise ValueError(
                f"region must be bool of the maps' shape {truth.shape}, not {region.dtype} {region.shape}."
            )
        self.truth = truth if region is None else truth & region
        self.region = region
        self.score = score if score.dtype in (np.float32, np.float64) else score.astype(np.float64)
        self.held_out = held_out if held_out is not None and len(held_out) else None
        self.parts = tuple(parts) if parts else None

    def __len__(self) -> int:
        """Return the number of images or maps."""
        return len(self.truth)

    def map(self, i: int) -> PixelMap:
        """Return one map, of pixels."""
        return PixelMap(self.score[i], self.truth[i], None if self.region is None else self.region[i])

    def maps(self) -> Iterator[PixelMap]:
        """Yield all maps in order, of pixels."""
        return (self.map(i) for i in range(len(self)))

    def rescored(self, change: Callable[[np.ndarray], np.ndarray]) -> Curve:
        """Return the curve of changed scores; ``change`` works on each score by itself."""
        return Curve(self.truth, change(self.score), region=self.region)

    @cached_property
    def positives(self) -> int:
        """Number of images or pixels with a defect."""
        return int(np.count_nonzero(self.truth))

    @property
    def negatives(self) -> int:
        """Number of clean images or pixels."""
        return self.counted - self.positives

    @cached_property
    def counted(self) -> int:
        """Number of images, or of pixels that count."""
        return self.truth.size if self.region is None else int(np.count_nonzero(self.region))

    @cached_property
    def range(self) -> tuple[float, float]:
        """The lowest and the highest score of all that count."""
        score = self.score if self.region is None else self.score[self.region]
        return float(score.min()), float(score.max())

    @property
    def has_both(self) -> bool:
        """Return whether both classes are present; where they are not, a metric is nan."""
        return self.positives > 0 and self.negatives > 0

    @property
    def thresholds(self) -> np.ndarray:
        """The K distinct scores of positives, in falling order."""
        return self._counted[0]

    @property
    def counts(self) -> Counts:
        """The counts at each threshold."""
        return self._counted[1]

    @property
    def tp(self) -> np.ndarray:
        """(K,) int64: true positives at each threshold."""
        return self.counts.tp

    @property
    def fp(self) -> np.ndarray:
        """(K,) int64: false positives at each threshold."""
        return self.counts.fp

    @property
    def fp_above(self) -> np.ndarray:
        """(K,) int64: negatives strictly above each threshold; less than :attr:`fp` where there are ties."""
        return self.counts.fp_above

    @cached_property
    def defect_scores(self) -> np.ndarray:
        """The scores of all positives, in the order of ``score``."""
        return self.score[self.truth]

    @property
    def clean_scores(self) -> np.ndarray:
        """A copy of the scores of all negatives. They are usually the many, so it is not kept."""
        return self.score[~self.truth if self.region is None else self.region & ~self.truth]

    def clean_at(self, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return the scores (R,) of negatives at ``ranks``, counted from 0 at the lowest."""
        found: np.ndarray = np.partition(self.clean_scores, np.unique(ranks))[ranks]
        return found

    def clean_parts(self) -> Iterator[np.ndarray]:
        """Yield copies of the scores of all negatives in parts, for what can be counted part by part."""
        yield self.clean_scores

    def region_weights(self, neighbours: np.ndarray = EIGHT_NEIGHBOURS) -> np.ndarray:
        """Return 1 / (pixels of its region) for each defect pixel, in the order of :attr:`defect_scores`."""
        return region_weights(self.truth, neighbours)

    @cached_property
    def pro(self) -> np.ndarray:
        """(K,) in (0, 1]: PRO, the share of a region's pixels at or above each threshold, mean over regions."""
        return self.cumulative_overlap(self.region_weights())

    @cached_property
    def spro(self) -> np.ndarray:
        """(K,) in (0, 1]: sPRO, as :attr:`pro`, but the overlap of a region reaches 1 at its saturation."""
        if self.parts is None:
            return self.pro
        at = np.zeros(self.thresholds.size)
        rising = self.thresholds[::-1]
        shown = -1, PixelMap(rising, rising)
        for part in self.parts:
            shown = shown if shown[0] == part.image else (part.image, self.map(part.image))
            if not shown[1].truth.ravel()[part.pixels].all():
                raise ValueError("a part lies where truth says that there is no defect.")
            score = np.sort(shown[1].score.ravel()[part.pixels])[::-1]
            found = np.minimum(np.arange(score.size + 1) / part.saturation, 1.0)
            place = rising.size - 1 - np.searchsorted(rising, score)
            at += np.bincount(place, weights=np.diff(found), minlength=at.size)
        reached = np.cumsum(at)
        return reached / reached[-1:]

    def cumulative_overlap(self, weight: np.ndarray) -> np.ndarray:
        """Return (K,) the share of the total weight at or above each threshold; ``weight`` is (positives,)."""
        falling = np.argsort(self.defect_scores)[::-1]
        gained = np.cumsum(weight[falling])[self.tp - 1]  # ties are counted together
        return gained / gained[-1:]  # divided by itself, the last is exactly 1

    def corners(self, overlap: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the corners of a curve of ``overlap`` (K,) from (0, 0) to (1, 1): false positive rate and overlap.

        In parts, each of which begins with the last corner of the part before. Between two thresholds only the rate
        grows, so the curve is flat. At a threshold it rises, vertically if no negative has that score, otherwise with a
        slope.
        """
        last = 0.0, 0.0
        for start in range(0, overlap.size, PART):
            own = slice(start, start + PART)
            rate = np.empty(2 * overlap[own].size + 1)
            height = np.empty_like(rate)
            rate[0], height[0] = last
            rate[1::2], rate[2::2] = self.fp_above[own] / self.negatives, self.fp[own] / self.negatives
            height[2::2] = overlap[own]
            height[1::2] = height[:-1:2]
            last = rate[-1], height[-1]
            yield rate, height
        yield np.array([last[0], 1.0]), np.array([last[1], 1.0])

    def held_out_threshold(self, share: float) -> float:
        """Return the score above which at most ``share`` of the held-out images lie; nan where there are none."""
        if self.held_out is None:
            return float("nan")
        falling = np.sort(np.asarray(self.held_out).ravel())[::-1]
        return float(falling[allowed_count(share, falling.size)])

    def held_out_moments(self) -> tuple[float, float]:
        """Return mean and standard deviation of the held-out scores; nan where there are none."""
        if self.held_out is None:
            return float("nan"), float("nan")
        held_out = np.asarray(self.held_out)
        return float(held_out.mean(dtype=np.float64)), float(held_out.std(dtype=np.float64))

    @cached_property
    def _counted(self) -> tuple[np.ndarray, Counts]:
        thresholds, tp = distinct(np.sort(self.defect_scores))
        clean = self.clean_scores
        clean.sort()
        below = np.searchsorted(clean, thresholds, side="left")
        up_to = np.searchsorted(clean, thresholds, side="right")
        return thresholds, Counts(tp, clean.size - below, clean.size - up_to, self.positives, clean.size)


def distinct(rising: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the distinct values (K,) of sorted scores in falling order, and how many scores reach each, int64."""
    is_first = np.ones(rising.size, dtype=bool)
    is_first[1:] = rising[1:] != rising[:-1]
    first = np.flatnonzero(is_first)[::-1]  # falling from here on
    return rising[first], rising.size - first


def allowed_count(share: float, count: int) -> int:
    """Return floor(share * count) for a ``share`` below 1; 10 % of 30 are 3 whatever the rounding of 0.1."""
    return int(share * count + 1e-9)


def area(parts: Iterable[tuple[np.ndarray, np.ndarray]], limit: float) -> float:
    """Return the area under a curve up to ``limit`` (by linear interpolation), divided by ``limit``.

    ``parts`` are rising rates and their overlaps, one after the other, each beginning where the one before ends.
    """
    total = 0.0
    for rate, overlap in parts:
        within = int(np.searchsorted(rate, limit, side="right"))
        ends = within < rate.size
        x = np.append(rate[:within], limit) if ends else rate
        y = np.append(overlap[:within], np.interp(limit, rate, overlap)) if ends else overlap
        total += float(np.dot(np.diff(x), y[1:] + y[:-1]))
        if ends:
            break
    return total / 2 / limit


def region_weights(truth: np.ndarray | Iterable[np.ndarray], neighbours: np.ndarray = EIGHT_NEIGHBOURS) -> np.ndarray:
    """Return 1 / (pixels of its region) for each defect pixel of maps (N, H, W), or of single maps (H, W)."""
    if isinstance(truth, np.ndarray) and truth.ndim != 3:
        raise ValueError(f"regions need maps (N, H, W), not {truth.shape}.")
    from scipy.ndimage import label  # here, because it takes a third of a second to import

    numbers, count = [np.zeros(0, dtype=np.intp)], 0
    for mask in truth:
        if mask.any():
            labels, found = label(mask, structure=neighbours)
            numbers.append(labels[mask] + (count - 1))
            count += found
    region = np.concatenate(numbers)
    return (1.0 / np.bincount(region))[region]
