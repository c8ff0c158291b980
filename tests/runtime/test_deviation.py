"""Differences between a file and torch on reference images."""

import numpy as np
import pytest

from iadbe.runtime.deviation import Deviation, deviation
from iadbe.runtime.inspector import Inspection
from iadbe.runtime.references import References

IMAGE = np.zeros((4, 4, 3), np.uint8)


def inspection(score, verdict="good", peak=1.0):
    return Inspection(score, None, verdict, np.full((4, 4), peak, np.float32))


def references(*expected, scale=0.0):
    halves = tuple(Inspection(e.score, None, e.verdict, e.anomaly_map[::2, ::2]) for e in expected)
    return References((IMAGE,) * len(halves), halves, (2,) * len(halves), (4, 4), "given images", 1e-4, scale)


def test_differences_are_relative_to_the_largest_value():
    given = references(inspection(1.0, peak=1.0), inspection(10.0, peak=4.0))
    found = deviation(given, [inspection(1.01, peak=1.0), inspection(10.0, "reject", peak=4.2)], "test")
    assert found.score == pytest.approx(0.001)
    assert found.map == pytest.approx(0.05)
    assert (found.verdicts, found.images, found.holds) == (1, 2, False)


def test_maps_are_relative_to_the_displayed_scale_where_that_is_larger():
    found = deviation(references(inspection(1.0), scale=100.0), [inspection(1.0, peak=1.005)], "test")
    assert found.map == pytest.approx(5e-5, rel=1e-3)
    assert found.holds


def test_what_is_not_finite_in_any_image_never_holds():
    given = references(inspection(1.0), inspection(2.0))
    found = deviation(given, [inspection(1.0), inspection(2.0, peak=float("nan"))], "test")
    assert not found.holds


@pytest.mark.parametrize(
    ("score", "map_", "verdicts", "holds"),
    [(0, 1e-5, 0, True), (0, 1e-3, 0, False), (0, 0, 1, False), (float("nan"), 0, 0, False)],
)
def test_scores_maps_and_verdicts_must_agree(score, map_, verdicts, holds):
    assert Deviation(1, score, map_, verdicts, "test", 1e-4).holds is holds


def test_the_text_names_the_differences():
    text = str(Deviation(3, 1e-6, 2e-6, 1, "onnxruntime", 1e-4))
    assert text == "onnxruntime and torch on 3 images: scores within 1.0e-06, maps within 2.0e-06, 1 other verdicts"
