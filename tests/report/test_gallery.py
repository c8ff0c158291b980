import base64
import io

import numpy as np
import pytest
from PIL import Image

from fake_results import result, save, scores
from iadbe.report.gallery import best_threshold, category_images, embedded, threshold, verdict
from iadbe.results.comparison import compare
from iadbe.running.store import Store


def open_(uri):
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def hang(store, *runs, count=6):
    (comparison,) = compare(runs)
    return category_images(store, comparison, comparison.entries, count)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path)


def test_detectors_side_by_side_on_the_same_images(store):
    runs = [save(store, "padim"), save(store, "dfkde", maps=False)]
    (group,) = hang(store, *runs)
    assert (group.category, group.detectors) == ("bottle", ("dfkde", "padim"))
    assert len(group.rows) == 6
    assert {e.defect for e in group.rows} == {"crack", "good", "stain"}
    assert group.rows[-1].defect == "good"
    assert [group.has_heat(i) for i in (0, 1)] == [False, True]
    for row in group.rows:
        assert [s.detector for s in row.heat_maps] == ["dfkde", "padim"]
        assert bool(row.truth) == (row.defect != "good")
        assert open_(row.heat_maps[1].heat).mean() > open_(row.image).mean() + 50


def test_an_image_that_one_run_did_not_keep(store):
    runs = [save(store, "padim", bad=1, good=1), save(store, "stfpm", bad=3, good=1)]
    (group,) = hang(store, *runs, count=10)
    missing = [e for e in group.rows if e.heat_maps[0] is None]
    assert len(group.rows) == 4
    assert len(missing) == 2
    assert all(e.image and e.heat_maps[1] for e in missing)


def test_one_good_image_is_always_there(store):
    (group,) = hang(store, save(store, "padim"), count=2)
    assert [e.defect == "good" for e in group.rows] == [False, True]


def test_of_several_seeds_the_first_is_shown(store):
    runs = [save(store, "padim", seed=s, maps=s == 1) for s in (1, 0)]
    (group,) = hang(store, *runs)
    assert not group.has_heat(0)


@pytest.mark.parametrize("damage", ["no json", "{}", "[1]", '[{"n": 0}]'])
def test_damaged_or_missing_images_are_left_out(store, damage):
    run = save(store, "padim")
    (store.path(run.spec) / "images" / "images.json").write_text(damage)
    assert hang(store, run) == []


def test_a_damaged_file_leaves_a_blank(store):
    run = save(store, "padim")
    for file in (store.path(run.spec) / "images").glob("*_map.png"):
        file.write_bytes(b"")
    (group,) = hang(store, run)
    assert not group.has_heat(0)
    assert group.rows[0].image


def test_threshold_is_the_best_f1_and_between_two_scores():
    truth = np.array([0, 0, 0, 1, 1, 1], bool)
    assert best_threshold(truth, np.array([1.0, 2, 3, 5, 6, 7])) == 4.0
    assert best_threshold(truth, np.array([1.0, 2, 9, 5, 6, 7])) == 3.5  # one false alarm costs less than a miss
    assert best_threshold(truth, np.array([9.0, 9, 9, 1, 1, 1])) == 1.0
    assert best_threshold(np.zeros(3, bool), np.arange(3.0)) is None
    assert threshold(result(scores=scores(shift=50.0)), "bottle") > 2


@pytest.mark.parametrize(
    ("is_defect", "score", "word"),
    [(True, 2.0, "caught"), (True, 0.0, "missed"), (False, 2.0, "false alarm"), (False, 0.0, "passed")],
)
def test_verdicts(is_defect, score, word):
    assert verdict(is_defect, score, 1.0) == word
    assert verdict(is_defect, score, None) == ""


def test_images_are_embedded_small():
    assert open_(embedded(np.zeros((800, 400, 3), np.uint8))).shape == (320, 160, 3)
    assert open_(embedded(np.zeros((80, 40, 3), np.uint8))).shape == (80, 40, 3)
