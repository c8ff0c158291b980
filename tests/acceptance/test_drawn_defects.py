"""Spots of known size and contrast."""

import numpy as np
import pytest

from iadbe.acceptance.drawn_defects import CONTRASTS, DIAMETERS, detection_curve, with_spot
from iadbe.errors import BadConfig

GREY = np.full((200, 300, 3), 100, np.uint8)


@pytest.mark.parametrize("diameter", [4.0, 10.0, 31.5])
def test_a_spot_has_its_area_and_contrast(diameter):
    drawn = with_spot(GREY, (90.0, 140.0), diameter, 0.2)
    change = drawn.astype(int) - GREY
    assert change[90, 140].tolist() == [51, 51, 51]
    assert change.sum() / 3 / 51 == pytest.approx(np.pi * diameter**2 / 4, rel=0.08)
    rows, columns = np.nonzero(change[..., 0])
    assert (rows.mean(), columns.mean()) == pytest.approx((90, 140), abs=0.1)


def test_a_spot_smaller_than_a_pixel_is_weak():
    change = with_spot(GREY, (90.0, 140.0), 0.5, 0.4).astype(int) - GREY
    assert 0 < change.max() < 51


def test_a_spot_that_leaves_the_range_goes_the_other_way():
    white = np.full((50, 50, 3), 250, np.uint8)
    assert with_spot(white, (25.0, 25.0), 8, 0.4)[25, 25, 0] == 250 - 102
    assert with_spot(255 - white, (25.0, 25.0), 8, -0.4)[25, 25, 0] == 5 + 102


def test_the_curve_counts_what_is_found():
    def find(images):
        return [bool(np.abs(image.astype(int) - 100).sum() > 3000) for image in images]

    found = detection_curve([GREY], find, 10)
    assert len(found.detections) == len(DIAMETERS) * len(CONTRASTS)
    largest = max(found.detections, key=lambda d: (d.diameter, d.contrast))
    assert (largest.pixels, largest.rate.value) == (pytest.approx(0.08 * 200), 1.0)
    smallest = min(found.detections, key=lambda d: (d.diameter, d.contrast))
    assert smallest.rate.value == 0.0
    sizes = [found.smallest(c).diameter for c in CONTRASTS]
    assert sizes == sorted(sizes, reverse=True)  # the more contrast, the smaller
    assert found.smallest(0.8).diameter < found.smallest(0.1).diameter
    assert detection_curve([GREY], find, 10) == found  # by the seed
    assert detection_curve([GREY], lambda images: [False] * len(images), 3).smallest(0.8) is None


def test_spots_lie_where_pixels_count():
    counts = np.zeros((200, 300), bool)
    counts[10:30, 20:40] = True
    places = []

    def find(images):
        places.extend(np.argwhere(image[..., 0] != 100).mean(axis=0) for image in images if (image != 100).any())
        return [True] * len(images)

    detection_curve([GREY], find, 5, counts_at=lambda height, width: counts)
    assert len(places) > 50
    assert all(8 <= row <= 32 and 18 <= column <= 42 for row, column in places)


def test_nothing_to_draw_on():
    with pytest.raises(BadConfig, match="nothing can be drawn"):
        detection_curve([], list, 3)
