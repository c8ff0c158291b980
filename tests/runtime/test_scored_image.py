"""Verdict, heat and pixels of a scored image."""

from pathlib import Path

import numpy as np
import pytest

from iadbe.files.input_images import InputImage
from iadbe.runtime.scored_image import ScoredImage
from iadbe.types import IntensityRange


@pytest.mark.parametrize(
    ("score", "threshold", "error", "defective"),
    [(0.5, 0.5, "", True), (0.4, 0.5, "", False), (0.5, None, "", None), (np.nan, 0.5, "no image", None)],
)
def test_a_part_is_defective_from_the_threshold_on(score, threshold, error, defective):
    assert ScoredImage(Path("x.png"), score, threshold, error).defective is defective


def test_heat_is_on_the_fixed_scale():
    map_ = np.array([[0.0, 2.0, 5.0]], np.float32)
    assert ScoredImage(Path("x.png"), 1.0, scale=(1.0, 3.0)).heat_of(map_).tolist() == [[0, 0.5, 1]]
    assert ScoredImage(Path("x.png"), 1.0).heat_of(map_) is None


def test_pixels_are_read_by_the_range_of_the_model():
    given = IntensityRange(0, 9)
    source = InputImage(Path("x.png"), lambda intensity: (np.full((2, 3, 3), intensity.high), ""))
    found = ScoredImage(Path("x.png"), 1.0, intensity=given, source=source)
    assert (found.pixels() == 9).all()
    assert (found.position_found, found.region_at(2, 3)) == (None, None)
    assert ScoredImage(Path("x.png"), 1.0).pixels() is None
