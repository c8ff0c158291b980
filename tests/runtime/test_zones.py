"""Zones of masks, LabelMe, COCO and JSON, each with its threshold."""

import json

import numpy as np
import pytest
from PIL import Image

from iadbe.errors import BadConfig, BadData
from iadbe.runtime.zones import Zone, read, zone_numbers

SQUARE = [[2, 1], [5, 1], [5, 4], [2, 4]]


def expected(height=8, width=10):
    mask = np.zeros((height, width), bool)
    mask[1:5, 2:6] = True
    return mask


def written(folder, content, name="zones.json"):
    (folder / name).write_text(json.dumps(content))
    return folder / name


def labelme():
    shapes = [{"label": "edge", "points": SQUARE, "shape_type": "polygon"}]
    return {"shapes": shapes, "imagePath": "a.png", "imageHeight": 8, "imageWidth": 10}


def coco(images=1):
    return {
        "images": [{"id": n, "file_name": f"{n}.png", "height": 8, "width": 10} for n in range(images)],
        "categories": [{"id": 7, "name": "edge"}],
        "annotations": [
            {"image_id": n, "category_id": 7, "segmentation": [[2, 1, 5, 1, 5, 4, 2, 4]]} for n in range(images)
        ],
    }


@pytest.mark.parametrize("content", [labelme(), coco(), {"zones": {"edge": {"polygons": [SQUARE]}}}])
def test_shapes_are_zones_by_their_labels(tmp_path, content):
    (zone,) = read(written(tmp_path, content), (8, 10), {"edge": 0.25})
    assert (zone.name, zone.size, zone.threshold) == ("edge", (8, 10), 0.25)
    assert np.array_equal(zone.mask(), expected())


def test_a_mask_is_one_zone(tmp_path):
    Image.fromarray(expected().astype(np.uint8) * 255).save(tmp_path / "thread.png")
    (zone,) = read(tmp_path / "thread.png", (80, 100))
    assert (zone.name, zone.threshold) == ("thread", None)
    assert np.array_equal(zone.mask(), expected())


def test_json_may_state_a_size_and_thresholds(tmp_path):
    content = {"size": [10, 8], "zones": {"a": {"polygons": [SQUARE], "threshold": 3}, "b": {"polygons": [SQUARE]}}}
    first, second = read(written(tmp_path, content), (800, 1000))
    assert (first.size, first.threshold, second.threshold) == ((8, 10), 3.0, None)
    assert read(written(tmp_path, content), (8, 10), {"a": 5})[0].threshold == 5


def test_a_pixel_belongs_to_the_first_of_its_zones():
    zones = (Zone.of_mask("a", expected()), Zone.of_mask("b", np.ones((8, 10), bool)))
    assert np.array_equal(zone_numbers(zones, (8, 10)), np.where(expected(), 1, 2))
    assert np.array_equal(zone_numbers(zones, (16, 20)), np.where(expected(), 1, 2).repeat(2, 0).repeat(2, 1))
    assert zone_numbers((), (8, 10)) is None
    with pytest.raises(BadData, match="same proportions"):
        zone_numbers(zones, (80, 80))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (coco(2), "shapes of 2 images"),
        ({"zones": {}}, "holds 0 zones"),
        ({"zones": {"a": {}}}, "'polygons' is missing"),
        ({"zones": [1]}, "no zones that can be read"),
        ({"zones": {"a": {"polygons": [[1, 2, 3]]}}}, "no zones that can be read"),
        ({"zones": {"a": {"polygons": [SQUARE], "threshold": "x"}}}, "no zones that can be read"),
        ({"zones": {"a": {"polygons": [SQUARE]}}, "size": [0, 5]}, "a size is"),
        ({"zones": {"a": {"polygons": [[[1, 1], [9e9, 1]]]}}}, "far outside"),
    ],
)
def test_what_is_no_zone_is_one_sentence(tmp_path, content, sentence):
    with pytest.raises(BadData, match=sentence):
        read(written(tmp_path, content), (8, 10))


def test_mistakes_are_one_sentence(tmp_path):
    with pytest.raises(BadData, match="there is no file"):
        read(tmp_path / "none.json", (8, 10))
    with pytest.raises(BadConfig, match="no zone 'egde'. Did you mean edge"):
        read(written(tmp_path, labelme()), (8, 10), {"egde": 1.0})
    with pytest.raises(BadConfig, match="finite"):
        read(written(tmp_path, labelme()), (8, 10), {"edge": float("nan")})
