"""What a threshold does as it sinks through the scores: counted once, exactly, for all metrics that read it off.

Between two defect scores only false positives change, so the distinct scores of the defects are all the thresholds
that matter. The clean scores, usually the many, are sorted by value alone: no index is carried along.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy.ndimage import label

EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)  # scipy's own default would part regions that touch at a corner


class Curve:
    """A ranking of pictures (N,) or of pixels (N, H, W), counted when first asked.

    Exact on raw scores: no bins, no clamping, no normalising, and equal scores fall together.
    """

    def __init__(self, truth: np.ndarray, score: np.ndarray) -> None:
        """Take ``truth``, bool, and ``score`` of the same shape, finite; a :class:`ValueError` says what does not fit.

        Neither is copied or changed. Scores other than float32 and float64 are read as float64.
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
        self.truth = truth
        self.score = score if score.dtype in (np.float32, np.float64) else score.astype(np.float64)

    @cached_property
    def positives(self) -> int:
        """Number of pictures or pixels with a defect."""
        return int(np.count_nonzero(self.truth))

    @property
    def negatives(self) -> int:
        """Number of clean pictures or pixels."""
        return self.truth.size - self.positives

    @property
    def has_both(self) -> bool:
        """Say whether there is something to tell apart; where there is not, a metric is nan."""
        return self.positives > 0 and self.negatives > 0

    @property
    def thresholds(self) -> np.ndarray:
        """The K distinct scores of defects, falling."""
        return self._counts.thresholds

    @property
    def tp(self) -> np.ndarray:
        """(K,) int64: defects at or above each threshold."""
        return self._counts.tp

    @property
    def fp(self) -> np.ndarray:
        """(K,) int64: clean ones at or above each threshold."""
        return self._counts.fp

    @property
    def fp_above(self) -> np.ndarray:
        """(K,) int64: clean ones strictly above each threshold; less than :attr:`fp` where there are ties."""
        return self._counts.fp_above

    @cached_property
    def pro(self) -> np.ndarray:
        """(K,) in (0, 1]: the share of a region's pixels at or above each threshold, mean over all regions."""
        region = _regions(self.truth)
        share = 1.0 / np.bincount(region)
        falling = np.argsort(self._defect_scores)[::-1]
        pro = np.cumsum(share[region[falling]])[self.tp - 1]  # where a run of equal scores ends
        return pro / pro[-1:]  # the sum is the number of regions; taken from itself, no rounding lifts the last above 1

    @cached_property
    def pro_corners(self) -> tuple[np.ndarray, np.ndarray]:
        """The corners of the PRO curve from (0, 0) to (1, 1): false positive rate (2K + 2,), overlap (2K + 2,).

        Down to a threshold only the rate grows, so the curve runs level; at the threshold it steps up, straight if no
        clean pixel has that very score, else aslant.
        """
        rate = np.zeros(2 * self.thresholds.size + 2)
        rate[1:-1:2] = self.fp_above / self.negatives
        rate[2:-1:2] = self.fp / self.negatives
        overlap = np.zeros_like(rate)
        overlap[3:-1:2] = self.pro[:-1]
        overlap[2:-1:2] = self.pro
        rate[-1] = overlap[-1] = 1.0
        return rate, overlap

    @cached_property
    def _defect_scores(self) -> np.ndarray:
        return self.score[self.truth]

    @cached_property
    def _counts(self) -> _Counts:
        defect = np.sort(self._defect_scores)
        is_first = np.ones(defect.size, dtype=bool)
        is_first[1:] = defect[1:] != defect[:-1]
        first = np.flatnonzero(is_first)[::-1]  # falling from here on
        thresholds = defect[first]
        clean = self.score[~self.truth]
        clean.sort()
        below = np.searchsorted(clean, thresholds, side="left")
        up_to = np.searchsorted(clean, thresholds, side="right")
        return _Counts(thresholds, defect.size - first, clean.size - below, clean.size - up_to)


class _Counts(NamedTuple):
    thresholds: np.ndarray
    tp: np.ndarray
    fp: np.ndarray
    fp_above: np.ndarray


def _regions(truth: np.ndarray) -> np.ndarray:
    """Number the 8-connected regions of all pictures (N, H, W) from 0; return the number of each defect pixel."""
    if truth.ndim != 3:
        raise ValueError(f"regions need maps (N, H, W), not {truth.shape}.")
    numbers, count = [np.zeros(0, dtype=np.intp)], 0
    for mask in truth:
        if mask.any():
            labels, found = label(mask, structure=EIGHT_NEIGHBOURS)
            numbers.append(labels[mask] + (count - 1))
            count += found
    return np.concatenate(numbers)
