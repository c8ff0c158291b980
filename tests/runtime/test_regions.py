"""Regions are those of SciPy's labelling; scores of rules are those of trying every threshold."""

import json
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
from scipy import ndimage

from iadbe.errors import BadConfig
from iadbe.runtime import regions
from iadbe.runtime.regions import (
    Region,
    RegionRule,
    components,
    read,
    region_score,
    regions_of,
    verdict_by_regions,
)
from iadbe.runtime.zones import Zone

MAP = np.array(
    [
        [9, 9, 0, 0, 0, 0],
        [9, 0, 0, 0, 5, 5],
        [0, 0, 7, 0, 5, 5],
        [0, 0, 0, 7, 0, 0],
        [3, 0, 0, 0, 0, 4],
    ],
    np.float32,
)


def rough(seed, shape=(40, 50), sigma=1.5):
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma).astype(np.float32)


def half(shape, name, threshold):
    mask = np.zeros(shape, bool)
    mask[:, : shape[1] // 2] = True
    return Zone.of_mask(name, mask, threshold)


@pytest.mark.parametrize("density", [0.0, 0.1, 0.35, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (37, 53)])
def test_components_are_those_of_scipy(shape, density):
    mask = np.random.default_rng(1).random(shape) < density
    expected, count = ndimage.label(mask, np.ones((3, 3)))
    label, pixels = components(mask)
    assert np.array_equal(pixels, np.flatnonzero(mask))
    pairs = set(zip(label.tolist(), expected.ravel()[pixels].tolist(), strict=True))
    assert len(pairs) == count == len(set(label.tolist())), "one label for each of theirs, and the other way round"


def test_a_spiral_is_one_component():
    size = 41
    mask = np.zeros((size, size), bool)
    for ring in range(0, size // 2, 2):
        mask[ring, ring : size - ring] = mask[size - 1 - ring, ring : size - ring] = True
        mask[ring : size - ring, ring] = mask[ring : size - ring, size - 1 - ring] = True
        mask[ring + 1, ring] = False
        mask[ring + 2, ring + 1] = True
    assert len(set(components(mask)[0].tolist())) == ndimage.label(mask, np.ones((3, 3)))[1]


def test_regions_have_area_box_and_peak():
    assert regions_of(MAP, 4) == [
        Region(3, (0, 0, 2, 2), 9.0),
        Region(6, (2, 1, 4, 3), 7.0),  # corners touch
        Region(1, (5, 4, 1, 1), 4.0),
    ]
    assert [region.area for region in regions_of(MAP, 4, RegionRule(min_area=2))] == [3, 6]
    assert regions_of(MAP, 10) == []
    assert json.loads(json.dumps(regions_of(MAP, 8)[0].card())) == {
        "area": 3, "box": [0, 0, 2, 2], "peak": 9.0, "zone": None,
    }  # fmt: skip


def test_small_regions_and_tolerated_ones_do_not_reject():
    assert verdict_by_regions(MAP, RegionRule(), 4)[0] == "reject"
    assert verdict_by_regions(MAP, RegionRule(min_area=7), 4) == ("good", [])
    assert verdict_by_regions(MAP, RegionRule(max_count=2), 4)[0] == "reject"
    verdict, tolerated = verdict_by_regions(MAP, RegionRule(max_count=3), 4)
    assert (verdict, len(tolerated)) == ("good", 3)
    assert verdict_by_regions(MAP, RegionRule(min_area=6), 6, 5)[0] == "look"
    assert verdict_by_regions(MAP, RegionRule(min_area=6), 6, 6)[0] == "good"


def test_a_zone_has_its_own_threshold():
    strict, lax = (RegionRule(zones=(half(MAP.shape, "left", own),)) for own in (3.0, 20.0))
    found = regions_of(MAP, 8, strict)
    assert [(region.zone, region.peak) for region in found] == [("left", 9.0), ("left", 7.0), ("left", 3.0)]
    assert regions_of(MAP, 8, lax) == []
    named = regions_of(MAP, 4, RegionRule(zones=(half(MAP.shape, "left", None),)))
    assert [region.zone for region in named] == ["left", "left", ""], "without a threshold it gives names only"


def test_zones_are_resized_to_the_image():
    rule = RegionRule(zones=(half((10, 12), "left", 3.0),))
    assert len(regions_of(MAP, 8, rule)) == 3
    given = np.zeros(MAP.shape, np.uint8)
    assert len(regions_of(MAP, 8, rule, given)) == 1, "what is given, as of a part that was registered, counts"


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("area", "count"), [(1, 0), (12, 0), (1, 3), (6, 2), (5000, 0)])
@pytest.mark.parametrize("own", [None, 0.3])
def test_the_score_is_the_highest_threshold_that_rejects(seed, area, count, own):
    map_ = np.round(rough(seed), 2)
    rule = RegionRule(area, count, (half(map_.shape, "left", own),) if own else ())
    rejecting = [t for t in np.unique(map_) if len(regions_of(map_, float(t), rule)) > count]
    fixed = len(regions_of(map_, np.inf, rule)) > count  # by zones with their own threshold alone
    expected = np.inf if fixed else max(rejecting, default=-np.inf)
    assert region_score(map_, rule) == expected


def test_the_score_looks_at_more_pixels_where_the_first_do_not_suffice():
    map_ = rough(3, (200, 200), 0.6)
    rule = RegionRule(min_area=900)
    found = region_score(map_, rule)
    assert max(r.area for r in regions_of(map_, found)) >= 900
    above = np.nextafter(np.float32(found), np.float32(np.inf))
    assert max(r.area for r in regions_of(map_, float(above))) < 900


def test_without_a_rule_the_score_is_the_maximum():
    assert region_score(MAP, RegionRule()) == 9.0


def test_a_rule_goes_through_a_card():
    rule = RegionRule(4, 1, (half((6, 8), "edge", 0.5), half((6, 8), "rest", None)))
    assert read(json.loads(json.dumps(asdict(rule)))) == rule
    assert read(None) is None
    assert "more than 1 regions of at least 4 pixels in 2 zones, 1 with a threshold of their own" in str(rule)


@pytest.mark.parametrize(
    "change",
    [
        {"min_area": 0}, {"max_count": -1}, {"min_area": True}, {"min_area": "9"}, {"zones": [{}]},
        {"zones": [{"name": "a", "size": [3, 3], "runs": "1 2", "threshold": None}]},
        {"zones": [{"name": "a", "size": [3, 10**6], "runs": "9", "threshold": None}]},
        {"zones": [{"name": "a", "size": [3, 3], "runs": "9", "threshold": float("nan")}]},
    ],
)  # fmt: skip
def test_a_damaged_card_is_refused(change):
    from iadbe.errors import BadData

    card = {"min_area": 1, "max_count": 0, "zones": [], **change}
    with pytest.raises((ValueError, TypeError, KeyError, BadData)):
        read(card)


def test_an_invalid_rule_is_an_error_with_one_sentence():
    with pytest.raises(BadConfig, match="min_area is a number of pixels"):
        RegionRule(0)
    with pytest.raises(BadConfig, match="max_count is a number of regions"):
        RegionRule(1, -1)


def test_neither_torch_nor_scipy_is_imported():
    code = (
        "import sys\nfor n in ('torch', 'timm', 'scipy'): sys.modules[n] = None\nimport numpy as np\n"
        "from iadbe.runtime.regions import regions_of\nprint(len(regions_of(np.eye(5), 1)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "1", done.stderr


@pytest.mark.parametrize("min_area", [1, 2, 7, 60, 400, 2400, 3000])
def test_bisected_levels_are_those_of_adding_pixel_by_pixel(min_area, monkeypatch):
    monkeypatch.setattr(regions, "FIRST", 16)
    rng = np.random.default_rng(min_area)
    for sigma, digits in ((0, 6), (1, 6), (3, 2), (0, 0)):  # noise, blobs, many equal values, two values
        map_ = np.round(ndimage.gaussian_filter(rng.random((50, 48)), sigma), digits).astype(np.float32)
        map_[:3] = rng.choice([-np.inf, np.inf, 0.5], 48)
        rule = RegionRule(min_area=min_area)
        expected = regions._by_union_find(map_.ravel(), map_.shape[1], rule)
        assert region_score(map_, rule) == expected
