from itertools import pairwise

import numpy as np
import pytest

from iadbe.curves.curve import DefectRegion
from iadbe.errors import BadConfig
from iadbe.metric import parse
from iadbe.metrics.aupro import AUPRO
from iadbe.metrics.spro import SPRO


def reference_spro(score, regions, limit):
    """Follow the definition: ``regions`` are (image, mask, saturation in pixels); every score cuts the maps."""
    truth = np.zeros(score.shape, dtype=bool)
    for n, mask, _ in regions:
        truth[n] |= mask
    points = [(0.0, 0.0)]
    for t in np.unique(score)[::-1]:
        overlaps = [min(np.sum(mask & (score[n] >= t)) / saturation, 1.0) for n, mask, saturation in regions]
        points.append((np.mean(score[~truth] >= t), np.mean(overlaps)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(points):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


def draw(seed, levels):
    """Draw maps and defects that overlap one another, with saturations from one pixel to all."""
    rng = np.random.default_rng(seed)
    shape, regions = (4, 9, 10), []
    for n in (1, 2, 2, 3):
        mask = np.zeros(shape[1:], dtype=bool)
        y, x = rng.integers(0, 6, 2)
        mask[y : y + 4, x : x + 4] = rng.random((4, 4))[: shape[1] - y, : shape[2] - x] < 0.8
        mask[y, x] = True
        regions.append((n, mask, rng.uniform(1.0, mask.sum())))
    truth = np.zeros(shape, dtype=bool)
    for n, mask, _ in regions:
        truth[n] |= mask
    score = rng.normal(size=shape) + truth
    parts = [DefectRegion(n, np.flatnonzero(mask), saturation) for n, mask, saturation in regions]
    return truth, np.round(score * levels) / levels if levels else score, regions, parts


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("levels", [None, 2])
@pytest.mark.parametrize("seed", range(8))
def test_equals_the_definition_computed_slowly(seed, levels, limit):
    truth, score, regions, parts = draw(seed, levels)
    expected = reference_spro(score, regions, limit)
    assert SPRO(limit)(truth, score, parts=parts) == pytest.approx(expected, abs=1e-9)


def test_the_overlap_saturates():
    truth = np.zeros((1, 4, 8), dtype=bool)
    truth[0, :, :4] = True  # sixteen places where the missing part might be, which has four pixels
    score = np.zeros(truth.shape)
    score[0, 0, :4] = 2.0
    score[0, 0, 4] = 1.0  # one false pixel, so that there is a rate below 5 % with nothing but the first row
    every = np.flatnonzero(truth[0])
    assert SPRO(1 / 16)(truth, score, parts=[DefectRegion(0, every, 4.0)]) == 1.0
    assert SPRO(1 / 16)(truth, score, parts=[DefectRegion(0, every, 16.0)]) == 0.25
    assert SPRO(1 / 16)(truth, score, parts=[DefectRegion(0, every, 8.0)]) == 0.5


def test_without_saturation_it_equals_aupro():
    truth, score, _, _ = draw(3, None)
    assert SPRO(0.3)(truth, score) == pytest.approx(AUPRO(0.3)(truth, score), abs=1e-12)
    assert SPRO()(truth, score, parts=[]) == pytest.approx(AUPRO(0.05)(truth, score), abs=1e-12)


def test_a_region_outside_the_truth_is_an_error():
    truth, score = np.array([[[True, False]]]), np.array([[[1.0, 0.0]]])
    with pytest.raises(ValueError, match="no defect"):
        SPRO()(truth, score, parts=[DefectRegion(0, np.array([1]), 1.0)])


def test_the_row_name_sets_the_limit():
    assert parse("pixel_spro")[1].limit == 0.05
    assert parse("pixel_spro@1%")[1].label == "spro@1%"
    with pytest.raises(BadConfig, match="write a share"):
        parse("pixel_spro@0%")
    with pytest.raises(BadConfig, match="spro.limit"):
        SPRO(1.5)
