from itertools import pairwise

import numpy as np
import pytest

from iadbe.curves.curve import Curve
from iadbe.errors import BadConfig
from iadbe.metrics.aupro import AUPRO
from iadbe.metrics.auroc import AUROC
from reference_curves import regions_of


def reference_aupro(truth, score, limit):
    """Follow the definition to the letter: every distinct score of every pixel, each binarised map compared afresh."""
    regions = [(image, where) for image, mask in zip(score, truth, strict=True) for where in regions_of(mask)]
    points = [(0.0, 0.0)]
    for t in np.unique(score)[::-1]:
        rate = np.mean(score[~truth] >= t)
        points.append((rate, np.mean([np.mean(image[where] >= t) for image, where in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def draw(seed, levels):
    """Draw maps with a few ragged blobs that touch at corners, the first and third image clean."""
    rng = np.random.default_rng(seed)
    shape = (5, int(rng.integers(5, 12)), int(rng.integers(5, 12)))
    truth = np.zeros(shape, dtype=bool)
    for n in (1, 3, 4):
        for _ in range(int(rng.integers(1, 4))):
            y, x = rng.integers(0, shape[1]), rng.integers(0, shape[2])
            truth[n, y : y + 4, x : x + 4] |= rng.random(truth[n, y : y + 4, x : x + 4].shape) < 0.6
            truth[n, y, x] = True
    score = rng.normal(size=shape) + rng.uniform(0, 2) * truth
    return truth, (np.round(score * levels) / levels if levels else score).astype(np.float32)


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 1, 4])
@pytest.mark.parametrize("seed", range(16))
def test_equals_the_definition_computed_slowly(seed, levels, limit):
    truth, score = draw(seed, levels)
    assert AUPRO(limit)(truth, score) == pytest.approx(reference_aupro(truth, score, limit), abs=1e-9)


def test_one_region_up_to_one_is_the_pixel_auroc():
    truth, score = np.zeros((2, 8, 8), dtype=bool), np.random.default_rng(0).integers(0, 9, (2, 8, 8)) / 8
    truth[0, 2:6, 3:5] = True
    assert AUPRO(1.0)(truth, score) == pytest.approx(AUROC()(truth, score), abs=1e-12)


def test_small_regions_count_as_much_as_large_ones():
    truth = np.zeros((1, 10, 10), dtype=bool)
    truth[0, 0:4, 0:4] = truth[0, 9, 9] = True
    score = np.where(truth, 1.0, 0.5)
    score[0, 9, 9] = 0.0  # the region of one pixel is missed: half the regions, though 16 of 17 pixels are found
    assert AUPRO()(truth, score) == pytest.approx(0.5)


def test_regions_that_touch_at_a_corner_are_one():
    truth = np.zeros((1, 4, 6), dtype=bool)
    truth[0, [0, 1, 2], [0, 1, 2]] = True  # one region in a row of corners, all found
    truth[0, 0, 5] = True  # another, missed
    score = np.where(truth, 1.0, 0.5)
    score[0, 0, 5] = 0.0
    assert AUPRO()(truth, score) == pytest.approx(0.5)  # 4-connected: 3 of 4 regions


def test_the_limit_is_met_by_interpolation():
    truth = np.zeros((1, 1, 12), dtype=bool)
    truth[0, 0, :2] = True
    score = np.zeros((1, 1, 12))
    score[0, 0, [0, 2, 3]] = 1.0  # half the region together with 2 of 10 clean pixels, the rest at the end
    # From (0, 0) to (0.2, 0.5), then to (1, 1): at 0.3 the curve stands at 0.5625.
    assert AUPRO()(truth, score) == pytest.approx((0.2 * 0.25 + 0.1 * (0.5 + 0.5625) / 2) / 0.3)
    assert AUPRO(0.1)(truth, score) == pytest.approx(0.125)  # the first point already lies beyond the limit


def test_a_step_exactly_at_the_limit_adds_no_area():
    truth = np.array([[[True, False, False, False, True]]])
    score = np.array([[[0.5, 1.0, 0.2, 0.1, 2.0]]])  # half at once, the rest where one of three clean pixels is above
    assert AUPRO(1 / 3)(truth, score) == pytest.approx(0.5)


def test_clean_images_count_in_the_rate():
    truth = np.zeros((2, 1, 4), dtype=bool)
    truth[0, 0, 0] = True
    score = np.array([[[2.0, 1.0, 1.0, 1.0]], [[3.0, 0.0, 0.0, 0.0]]])
    assert AUPRO(1.0)(truth, score) == pytest.approx(6 / 7)
    assert AUPRO(1.0)(truth[:1], score[:1]) == 1.0


def test_constant_gives_half_the_limit():
    truth = np.zeros((1, 4, 4), dtype=bool)
    truth[0, 1, 1] = True
    assert AUPRO()(truth, np.zeros((1, 4, 4))) == pytest.approx(0.15)


def test_one_curve_serves_several_limits():
    curve = Curve(*draw(3, None))
    overlap = curve.pro
    assert AUPRO(0.05).value(curve) < AUPRO(0.3).value(curve) < AUPRO(1.0).value(curve)
    assert curve.pro is overlap


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.01, float("nan")])
def test_a_limit_outside_0_to_1_is_an_error(limit):
    with pytest.raises(BadConfig, match="limit"):
        AUPRO(limit)


@pytest.mark.parametrize(
    ("text", "limit", "label"),
    [
        ("5%", 0.05, "aupro@5%"),
        ("30%", 0.3, "aupro"),
        ("7%", 0.07, "aupro@7%"),
        ("0.1%", 0.001, "aupro@0.1%"),
        ("100%", 1.0, "aupro@100%"),
    ],
)
def test_text_and_label_agree(text, limit, label):
    metric = AUPRO.at(text)
    assert metric.limit == limit
    assert metric.label == label


@pytest.mark.parametrize("text", ["0.05", "5", "x%", "%", "", "0%", "101%", "nan%", "-5%"])
def test_invalid_limits_in_row_names_are_an_error(text):
    with pytest.raises(BadConfig, match="write a share"):
        AUPRO.at(text)
