import re

import numpy as np

from iadbe.report import colormap


def lightness(rgb):
    """Return CIELAB lightness, written apart from the code under test."""
    share = rgb.astype(float) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    y = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 216 / 24389, 116 * np.cbrt(y) - 16, y * 24389 / 27)


def test_lightness_rises_evenly():
    steps = np.diff(lightness(colormap.scale())[::15])
    assert (steps > 3).all()
    assert (steps < 9).all()
    assert lightness(colormap.scale()[:1]) < 8
    assert lightness(colormap.scale()[-1:]) > 93


def test_colours_take_bytes_and_shares():
    shares = np.array([[0.0, 0.5, 1.0, 7.0, -1.0]])
    assert np.array_equal(colormap.colours(shares)[0, [0, 2]], colormap.scale()[[0, 255]])
    assert np.array_equal(colormap.colours(shares)[0, [3, 4]], colormap.scale()[[255, 0]])  # outside is clipped
    assert np.array_equal(colormap.colours(np.array([[7]], np.uint8))[0, 0], colormap.scale()[7])


def test_overlay_keeps_the_image_where_it_is_cold_and_shows_heat_where_it_is_hot():
    image = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    cold_and_hot = np.zeros((4, 4), np.uint8)  # of another size
    cold_and_hot[:, 2:] = 255
    laid = colormap.overlay(image, cold_and_hot)
    assert laid.shape == image.shape
    assert laid.dtype == np.uint8
    ratio = laid[0, 0].astype(float) / laid[0, 0].max()
    assert ratio[0] == 1
    assert ratio[0] > ratio[1] > ratio[2]  # the image's colour order survives
    assert np.abs(laid[0, 7].astype(int) - colormap.scale()[255]).max() < 60


def test_the_transparent_overlay_is_clear_where_values_are_low():
    warm = np.array([[0.0, 0.05, 0.3, 1.0]])
    veil = colormap.transparent(warm)
    assert veil.shape == (1, 4, 4)
    assert veil[0, 0, 3] == 0
    assert veil[0, 1, 3] < 10
    assert 0 < veil[0, 2, 3] < veil[0, 3, 3] == 255
    assert (veil[0, 3, :3] == colormap.scale()[255]).all()


def test_what_does_not_count_is_grey_in_both_overlays():
    region = np.array([[True, False]])
    warm, image = np.array([[0.9, 0.9]]), np.full((1, 2, 3), (200, 30, 30), np.uint8)
    veil = colormap.transparent(warm, region)
    assert (veil[0, 0] == colormap.transparent(warm)[0, 0]).all()
    assert tuple(veil[0, 1]) == colormap.IGNORED
    drawn = colormap.greyed(colormap.overlay(image, warm), region)
    assert len(set(drawn[0, 1])) == 1 < len(set(drawn[0, 0]))


def test_outline_is_the_border_inside_the_mask():
    image = np.zeros((10, 10, 3), np.uint8)
    mask = np.zeros((10, 10), bool)
    mask[2:8, 3:9] = True
    drawn = colormap.outline(image, mask, colour=(100, 200, 50))
    is_line = (drawn == (100, 200, 50)).all(axis=2)
    assert is_line.sum() == 4 * 5
    assert is_line[2, 3]
    assert not is_line[3:7, 4:8].any()
    assert drawn[4, 5].any()  # tinted
    assert not drawn[~mask].any()
    assert colormap.outline(image, np.zeros((5, 5), bool)).max() == 0


def test_the_legend_goes_from_low_to_high():
    stops = re.findall("#([0-9a-f]{6})", colormap.css())
    assert stops[0] == bytes(colormap.scale()[0]).hex()
    assert stops[-1] == bytes(colormap.scale()[255]).hex()
