"""The verdict on a part: good, to be looked at, or rejected.

A part is rejected from the threshold on (``>=``), and is to be looked at from the look threshold on, which is lower.
"""

from __future__ import annotations

import math

GOOD, LOOK, REJECT = "good", "look", "reject"
UNKNOWN = ""  # without a threshold
VERDICTS = {-1: UNKNOWN, 0: GOOD, 1: LOOK, 2: REJECT}  # by the number in the output of exported files


def verdict_of(score: float, threshold: float | None, look_threshold: float | None = None) -> str:
    """Return good, look or reject; empty without a threshold or a score.

    Args:
        score: raw: higher is more anomalous
        threshold: from which on a part is rejected
        look_threshold: from which on it is to be looked at; None: there are two verdicts
    """
    if threshold is None or math.isnan(score):
        return UNKNOWN
    if score >= threshold:
        return REJECT
    return LOOK if look_threshold is not None and score >= look_threshold else GOOD
