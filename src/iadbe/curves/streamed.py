"""The exact curve of maps of different sizes, each of which is read when it is needed and not kept.

Numbers are those of :class:`iadbe.curves.curve.Curve` on the same pixels. Only the distinct scores of defect pixels and
their counts are held; clean pixels are sorted and counted map by map. So memory grows with the number of defect pixels
(about 45 bytes each) and with the size of one map, not with the number of maps. One dialect of AUPRO, ``anomalib``,
compares each region with the clean scores that the limit lets in: it holds these, 5 or 30 % of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property

import numpy as np

from iadbe.curves.curve import EIGHT_NEIGHBOURS, Counts, Curve, DefectRegion, PixelMap, distinct, region_weights
from iadbe.curves.order_statistics import at_ranks

Read = Callable[[int], PixelMap]


class StreamedCurve(Curve):
    """A ranking of the pixels of maps that have sizes of their own."""

    def __init__(
        self,
        count: int,
        read: Read,
        held_out: Callable[[], Iterable[np.ndarray]] | None = None,
        parts: Sequence[DefectRegion] | None = None,
    ) -> None:
        """Take ``count`` maps; ``read`` returns one of them, the same at each call.

        Args:
            count: number of maps
            read: from a map's position to the map with its truth, of finite scores
            held_out: starts to yield the scores of good images that were neither learnt nor tested, map by map
            parts: the defects one by one, as :class:`Curve` has them
        """
        self.count, self.read, self.held_out_parts = count, read, held_out
        self.parts = tuple(parts) if parts else None

    def __len__(self) -> int:
        return self.count

    def map(self, i: int) -> PixelMap:
        return self.read(i)

    def rescored(self, change: Callable[[np.ndarray], np.ndarray]) -> Curve:
        def changed(i: int) -> PixelMap:
            one = self.read(i)
            return one._replace(score=change(one.score))

        return StreamedCurve(self.count, changed)

    @cached_property
    def _summary(self) -> tuple[int, int, tuple[float, float]]:
        """Number of defect pixels and of all that count, and the lowest and the highest score."""
        positives = counted = 0
        low, high = np.inf, -np.inf
        for one in self.maps():
            scores = one.counted_scores
            if not np.isfinite(scores).all():
                raise ValueError("score must be finite: it holds nan or infinity.")
            positives, counted = positives + int(np.count_nonzero(one.truth)), counted + scores.size
            if scores.size:
                low, high = min(low, float(scores.min())), max(high, float(scores.max()))
        return positives, counted, (low, high)

    @property
    def positives(self) -> int:
        return self._summary[0]

    @property
    def counted(self) -> int:
        return self._summary[1]

    @property
    def range(self) -> tuple[float, float]:
        return self._summary[2]

    @property
    def defect_scores(self) -> np.ndarray:
        """The scores of all positives; they are read anew, because the counts do not need them."""
        return np.concatenate([np.zeros(0, np.float32), *(one.defect_scores for one in self.maps())])

    @cached_property
    def pro(self) -> np.ndarray:
        rising = self.thresholds[::-1]
        gained = np.zeros(rising.size)  # overlap by the scores that are exactly each threshold
        for one in self.maps():
            if one.truth.any():
                weights = region_weights(one.truth[None])
                np.add.at(gained, rising.size - 1 - np.searchsorted(rising, one.defect_scores), weights)
        np.cumsum(gained, out=gained)
        gained /= gained[-1:]
        return gained

    @property
    def clean_scores(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.float32), *self.clean_parts()])

    def clean_at(self, ranks: Sequence[int] | np.ndarray) -> np.ndarray:
        return at_ranks(self.clean_parts, ranks)

    def clean_parts(self) -> Iterator[np.ndarray]:
        return (one.score[one.clean] for one in self.maps())

    def region_weights(self, neighbours: np.ndarray = EIGHT_NEIGHBOURS) -> np.ndarray:
        return region_weights((one.truth for one in self.maps()), neighbours)

    def held_out_threshold(self, share: float) -> float:
        raise TypeError("a threshold on held-out scores is one of image metrics.")

    def held_out_moments(self) -> tuple[float, float]:
        if self.held_out_parts is None:
            return float("nan"), float("nan")
        sums = [(part.size, float(part.sum(dtype=np.float64))) for part in self.held_out_parts()]
        count = sum(size for size, _ in sums)
        mean = sum(total for _, total in sums) / count
        squares = sum(float(np.square(part - mean, dtype=np.float64).sum()) for part in self.held_out_parts())
        return mean, float(np.sqrt(squares / count))

    @cached_property
    def _counted(self) -> tuple[np.ndarray, Counts]:
        scores = self.defect_scores
        scores.sort()
        thresholds, tp = distinct(scores)
        del scores
        rising = thresholds[::-1]
        # how many clean scores have exactly so many thresholds below them, or up to them
        above, reached = (np.zeros(rising.size + 1, np.int64) for _ in range(2))
        for clean in self.clean_parts():
            clean.sort()
            above += np.bincount(np.searchsorted(rising, clean, side="left"), minlength=above.size)
            reached += np.bincount(np.searchsorted(rising, clean, side="right"), minlength=above.size)
        fp, fp_above = reached[:0:-1], above[:0:-1]
        for falling in (fp, fp_above):
            np.cumsum(falling, out=falling)  # in place
        return thresholds, Counts(tp, fp, fp_above, self.positives, self.negatives)
