"""Values at given ranks of scores that are read part by part, several times, and never held together.

A search over the bits of floating-point numbers, 16 at a time: numbers of one sign are ordered as their bits are.
Values in float32 are read twice. The result is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

DIGIT = 16  # bits that one reading of all scores decides
VALUES = 2**DIGIT


def at_ranks(parts: Callable[[], Iterable[np.ndarray]], ranks: Sequence[int] | np.ndarray) -> np.ndarray:
    """Return the scores (R,) at rising ``ranks``, counted from 0 at the lowest score.

    Args:
        parts: starts to yield all scores (N,) in parts, float32 or float64, the same at each call, without nan
        ranks: below the number of scores
    """
    left = np.asarray(ranks, np.int64).copy()  # rank among the scores that begin with the known bits
    bits, known = 0, np.zeros(left.size, np.uint64)
    kind: np.dtype[Any] = np.dtype(np.float32)
    while not bits or bits < 8 * kind.itemsize:
        beginnings, place = np.unique(known, return_inverse=True)
        counts = np.zeros((beginnings.size, VALUES), np.int64)
        for part in parts():
            kind = part.dtype
            _count(_ordered(part), 8 * kind.itemsize - bits, beginnings, counts)
        rising = counts.cumsum(1)
        digits = np.array(
            [np.searchsorted(rising[row], rank, side="right") for row, rank in zip(place, left, strict=True)]
        )
        below = np.where(digits > 0, rising[place, digits - 1], 0)
        left -= below
        known = known * np.uint64(VALUES) + digits.astype(np.uint64)
        bits += DIGIT
    return _scores(known, kind)


def _count(keys: np.ndarray, unknown: int, beginnings: np.ndarray, counts: np.ndarray) -> None:
    """Count the next digit of the keys (N,) that have one of the ``beginnings``; ``unknown`` bits follow these."""
    start = keys >> np.uint64(unknown) if unknown < 64 else np.zeros_like(keys)
    row = np.searchsorted(beginnings, start).clip(max=beginnings.size - 1)
    own = beginnings[row] == start
    digit = (keys[own] >> np.uint64(unknown - DIGIT)) & np.uint64(VALUES - 1)
    cells, number = np.unique(row[own] * VALUES + digit.astype(np.int64), return_counts=True)
    counts.reshape(-1)[cells] += number


def _ordered(scores: np.ndarray) -> np.ndarray:
    """Return whole numbers (N,) uint64 that have the order of the scores."""
    if scores.dtype == np.float32:
        return _ascending(scores.view(np.uint32).astype(np.uint64), 32)
    return _ascending(scores.view(np.uint64), 64)


def _ascending(bits: np.ndarray, width: int) -> np.ndarray:
    """Return the bits of floating-point numbers (N,) uint64 so that they ascend with the numbers."""
    top, every = np.uint64(1 << (width - 1)), np.uint64((1 << width) - 1)
    ascending: np.ndarray = bits ^ np.where((bits & top) > 0, every, top)
    return ascending


def _scores(keys: np.ndarray, kind: np.dtype[Any]) -> np.ndarray:
    """Return the scores (N,) that have these keys."""
    width = 8 * kind.itemsize
    top, every = np.uint64(1 << (width - 1)), np.uint64((1 << width) - 1)
    bits: np.ndarray = keys ^ np.where((keys & top) > 0, top, every)
    return bits.astype(np.uint32 if width == 32 else np.uint64).view(kind)
