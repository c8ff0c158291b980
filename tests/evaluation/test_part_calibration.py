"""The combination of views keeps its guarantee although views depend on each other, and finds weak defects."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import Calibration, ThresholdRule, read
from iadbe.evaluation.part_calibration import calibrate_combination
from iadbe.runtime.parts import ViewScore, parts_of
from iadbe.runtime.regions import RegionRule

FOUND = Calibration("images", 3.0, 4.0)
OFFSETS = np.array([0.0, 10.0, -5.0])  # views are not on one scale


def parts(count, seed, shift=0.0, common=1.0):
    rng = np.random.default_rng(seed)
    scores = common * rng.normal(size=(count, 1)) + rng.normal(size=(count, 3)) + shift + OFFSETS
    images = [
        ViewScore(Path(f"p{n}_v{v}"), float(scores[n, v]), view=f"v{v}", verdict="good")
        for n in range(count)
        for v in range(3)
    ]
    return parts_of(images, r"p\d+", 0.0)


def rejected(found, some):
    return np.mean([found.combination.score(part.images) >= found.combination.threshold for part in some])


def test_new_good_parts_are_rejected_as_rarely_as_guaranteed():
    new = parts(1000, 1)
    rates = [rejected(calibrate_combination(FOUND, ThresholdRule(0.1), parts(78, s), ()), new) for s in range(2, 42)]
    assert np.mean(rates) == pytest.approx(0.1, abs=0.03)


def test_weak_defects_in_all_views_are_found_more_often_than_by_the_maximum():
    """As long as views depend little on each other; the maximum is that of the view on the highest scale."""
    good, new, bad = (parts(n, n, shift, common=0.3) for n, shift in ((400, 0), (500, 0), (501, 1.5)))
    found = calibrate_combination(FOUND, ThresholdRule(0.05), good, bad)
    highest = np.sort([max(image.score for image in part.images) for part in good])[-20]
    by_maximum = np.mean([max(image.score for image in part.images) >= highest for part in bad])
    assert rejected(found, new) < 0.08
    assert rejected(found, bad) > by_maximum + 0.05
    assert found.escape.value == pytest.approx(1 - rejected(found, bad))


def test_what_is_stated_and_kept():
    rule = ThresholdRule(0.05, look=0.2, confidence=0.9)
    found = calibrate_combination(FOUND, rule, parts(100, 0), parts(5, 1))
    assert (found.good, found.bad, found.unit) == (50, 5, "parts")
    assert found.how == "at most 5 % overkill with 90 % confidence, guaranteed by 50 good parts, views combined"
    assert found.combination.look_threshold < found.combination.threshold
    assert "of a part's combined score" in found.thresholds()[0]
    assert sorted(found.combination.references) == ["v0", "v1", "v2"]
    assert read(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_too_few_and_what_does_not_go_together():
    with pytest.raises(BadConfig, match="takes 19 good parts \\(half of those given\\)"):
        calibrate_combination(FOUND, ThresholdRule(0.05), parts(36, 0), ())
    with pytest.raises(BadConfig, match="belongs to overkill"):
        calibrate_combination(FOUND, ThresholdRule(escape=0.05), parts(36, 0), parts(3, 1))
    ruled = dataclasses.replace(FOUND, rule=RegionRule())
    with pytest.raises(BadConfig, match="belongs to overkill"):
        calibrate_combination(ruled, ThresholdRule(0.1), parts(36, 0), ())
    other = parts_of([ViewScore(Path("p1_x"), 1.0, view="x")], "p1", 0.0)
    with pytest.raises(BadConfig, match="view 'x' is in too few"):
        calibrate_combination(FOUND, ThresholdRule(0.1), parts(36, 0), other)
