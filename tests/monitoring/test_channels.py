"""What is measured of an image for drift."""

import numpy as np
import pytest

from iadbe.monitoring import channels


def _disc(size=64, x=0.5, y=0.5, light=1.0, blur=0):
    rows, columns = np.mgrid[0:size, 0:size]
    grey = np.where(np.hypot(rows - y * size, columns - x * size) < size / 5, 200.0, 60.0)
    for _ in range(blur):
        grey = (np.roll(grey, 1, 0) + np.roll(grey, -1, 0) + np.roll(grey, 1, 1) + np.roll(grey, -1, 1) + grey) / 5
    return np.repeat((grey * light).astype(np.uint8)[..., None], 3, axis=2)


def test_light_moves_brightness_alone():
    plain, dim = channels.of_pixels(_disc()), channels.of_pixels(_disc(light=0.5))
    assert dim["brightness"] == pytest.approx(plain["brightness"] / 2, rel=0.02)
    assert dim["sharpness"] == pytest.approx(plain["sharpness"], rel=0.05)
    assert (dim["x"], dim["y"]) == pytest.approx((plain["x"], plain["y"]), abs=0.005)


def test_blur_lowers_sharpness():
    assert channels.of_pixels(_disc(blur=4))["sharpness"] < channels.of_pixels(_disc())["sharpness"] / 2


def test_the_position_is_that_of_the_part():
    found = channels.of_pixels(_disc(x=0.4, y=0.6))
    assert (found["x"], found["y"]) == pytest.approx((0.4, 0.6), abs=0.02)


@pytest.mark.parametrize("pixels", [np.full((8, 8), 7, np.uint8), np.zeros((1, 5, 3), np.uint8)])
def test_an_image_without_edges_is_in_the_middle(pixels):
    found = channels.of_pixels(pixels)
    assert (found["sharpness"], found["x"], found["y"]) == (0.0, 0.5, 0.5)


def test_a_small_defect_does_not_move_the_distance():
    map_ = np.full((64, 64), 2.0, np.float32)
    map_[:8, :8] = 90
    assert channels.of_map(map_) == {"distance": 2.0}
    assert channels.of_map(None) == {}


def test_of_a_large_image_blocks_are_measured():
    rng = np.random.default_rng(0)
    small = rng.integers(0, 255, (300, 400, 3), dtype=np.uint8)
    large = np.pad(small.repeat(4, 0).repeat(4, 1), ((0, 3), (0, 0), (0, 0)))  # what makes no whole block is left out
    assert channels.of_pixels(large) == pytest.approx(channels.of_pixels(small), rel=1e-5)
