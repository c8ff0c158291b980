"""Anomaly maps as image files."""

from pathlib import Path

import numpy as np
from PIL import Image

from iadbe.report import colormap, map_images
from iadbe.running.inference import ImageResult
from iadbe.runtime.scored_image import ScoredImage


def test_a_large_image_is_drawn_in_strips_and_looks_the_same(monkeypatch, tmp_path):
    rng = np.random.default_rng(0)
    result = ImageResult(Path("x.png"), 1.0, size=(30, 20), view_map=rng.random((8, 8), np.float32), scale=(0.0, 1.0))
    pixels = rng.integers(0, 255, (30, 20, 3), dtype=np.uint8)
    expected = colormap.colours(result.heat), colormap.overlay(pixels, result.heat)
    monkeypatch.setattr(map_images, "STRIP", 7)
    map_images.draw(result, result.map, pixels, tmp_path / "x", 0.5)
    for kind, image in zip(("heat", "overlay"), expected, strict=True):
        with Image.open(tmp_path / f"x_{kind}.png") as drawn:
            np.testing.assert_array_equal(np.asarray(drawn), image)
    with Image.open(tmp_path / "x_mask.png") as mask:
        np.testing.assert_array_equal(np.asarray(mask) == 255, result.map >= 0.5)


def test_nothing_is_drawn_without_a_map(tmp_path):
    map_images.write(ScoredImage(Path("x.png"), 1.0, scale=(0.0, 1.0)), tmp_path / "x", 0.5)
    assert not list(tmp_path.iterdir())
