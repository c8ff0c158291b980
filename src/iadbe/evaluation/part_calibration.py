"""Calibrates a combination of a part's views: a conformal threshold of the combined scores of good parts.

The good parts are split at random in two halves. Scores of the first are the references of p-values
(:mod:`iadbe.runtime.parts`), the combined scores of the second give the thresholds. Given the references, a part's
combined score depends on its own images alone; so the guarantee is that of split conformal prediction with the number
of parts in the second half.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import PARTS, Calibration, ThresholdRule
from iadbe.evaluation.conformal import clopper_pearson, conformal_threshold, guaranteed_rate, percent
from iadbe.runtime.parts import Combination, Part


def calibrate_combination(
    found: Calibration, rule: ThresholdRule, good: Sequence[Part], bad: Sequence[Part]
) -> Calibration:
    """Return a calibration with a combination of views.

    Args:
        found: of the images
        rule: by overkill
        good: parts that the detector has not learnt
        bad: defective parts; may be empty

    Raises:
        BadConfig: for too few good parts, or a view that not all halves have
    """
    if rule.escape is not None or rule.cost is not None or found.rule is not None:
        raise BadConfig("a combination of views belongs to overkill, without rules for regions.")
    order = np.random.default_rng(0).permutation(len(good))
    half = len(good) // 2
    references: dict[str, list[float]] = {}
    for index in order[:half]:
        for image in good[index].images:
            references.setdefault(image.view, []).append(image.score)
    rule.check(len(good) - half, len(bad), unit=f"{PARTS} (half of those given)")
    for part in (*good, *bad):
        if missing := {image.view for image in part.images} - set(references):
            raise BadConfig(f"the view {sorted(missing)[0]!r} is in too few of the good parts to be combined.")
    combination = Combination({view: tuple(sorted(scores)) for view, scores in sorted(references.items())}, 0.0)
    values = np.array([combination.score(good[index].images) for index in order[half:]], np.float32)
    count, confidence = len(values), rule.confidence
    threshold = conformal_threshold(values, rule.share, confidence)
    look = None if rule.look is None else conformal_threshold(values, rule.look, confidence)
    by = "" if confidence is None else f" with {percent(confidence)} confidence"
    limit = threshold if look is None else look
    passed = sum(combination.score(part.images) < limit for part in bad)
    return replace(
        found,
        how=f"at most {percent(rule.share)} overkill{by}, guaranteed by {count} good {PARTS}, views combined",
        overkill=guaranteed_rate(rule.share, count, confidence),
        look=None if rule.look is None else guaranteed_rate(rule.look, count, confidence),
        good=count,
        bad=len(bad),
        unit=PARTS,
        escape=clopper_pearson(passed, len(bad)) if bad else None,
        combination=replace(combination, threshold=threshold, look_threshold=look),
    )
