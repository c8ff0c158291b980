"""Sets of images that a detector is calibrated on; how they are used is tested with `iadbe calibrate`."""

import numpy as np
import pytest
from PIL import Image

from exported_models import golden, random_image
from iadbe.errors import BadConfig
from iadbe.evaluation.calibration import ThresholdRule
from iadbe.running.calibration_images import Grouping, ScoredSets, region_rule
from iadbe.runtime.regions import RegionRule, region_score

BY_GROUP = Grouping(r"part\d")


@pytest.fixture
def paths(tmp_path):
    for n in range(4):
        Image.fromarray(random_image(50, 60, n)).save(tmp_path / f"part{n // 2}_{n % 2}.png")
    return sorted(tmp_path.iterdir())


def test_images_have_values_by_the_rule_and_the_highest_come_first(paths):
    sets = ScoredSets(golden(), "cpu", RegionRule(min_area=30), [])
    found = sets.score(paths, "good")
    assert found.scores.regions.shape == found.scores.top.shape == (4,)
    assert (found.scores.regions < found.scores.top).all()
    by_path = dict(zip([str(path) for path in paths], found.scores.regions, strict=True))
    assert [by_path[str(image.path)] for image in found.images] == sorted(found.scores.regions, reverse=True)
    (alone,) = ScoredSets(golden(), "cpu", None, []).score(paths[:1], "good").images
    assert alone.view_map is None, "maps are not kept"
    with pytest.raises(BadConfig, match="is it good or defective"):
        sets.score(paths[:1], "defective")


def test_groups_and_duplicates(paths):
    notes = []
    found = ScoredSets(golden(), "cpu", None, notes, BY_GROUP).score([*paths, paths[0]], "good")
    assert found.scores.score.shape == (2,)
    assert sorted(found.groups) == ["part0", "part0", "part1", "part1"]
    assert notes == []  # of paths, each counts once


def test_parts_are_counted_as_such(paths):
    by = Grouping(part=r"part\d", view=r"_(\d)", combine="fisher")
    found = ScoredSets(golden(), "cpu", None, [], by).score(paths, "good")
    assert found.scores.unit == "parts"
    assert [[image.view for image in part.images] for part in found.parts(by)] == [["0", "1"], ["0", "1"]]


def test_the_escape_is_counted_from_verdicts_where_regions_are_tolerated(paths):
    rule = RegionRule(max_count=10**6)
    sets = ScoredSets(golden(), "cpu", rule, [], BY_GROUP)
    bad = sets.score(paths, "defective")
    calibration = ThresholdRule(0.5).calibrate(bad.scores._replace(regions=np.zeros(2, np.float32)), bad.scores, rule)
    assert sets.with_escape(calibration, bad).escape.value == 1.0, "none has so many regions"


def test_a_rule_needs_maps_and_zones_their_thresholds(paths):
    assert region_rule(golden(), paths, 0, 0, "", None) is None
    assert region_rule(golden(), paths, 0, 2, "", None) == RegionRule(1, 2)
    with pytest.raises(BadConfig, match="need a file of zones"):
        region_rule(golden(), paths, 0, 0, "", {"a": 1.0})


def test_the_value_is_that_of_the_map_at_the_images_own_size(paths):
    rule = RegionRule(min_area=30)
    (value,) = ScoredSets(golden(), "cpu", rule, []).score(paths[:1], "good").scores.regions
    from iadbe import api

    (found,) = api.predict(golden(), paths[:1], device="cpu")
    assert found.map.shape == (50, 60)
    assert region_score(found.map, rule) == value
