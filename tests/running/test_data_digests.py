import json
from dataclasses import replace
from pathlib import Path

import pytest

import dataset_trees
from fake_results import result
from iadbe.data import resolve
from iadbe.running import data_digests, plan
from iadbe.running.store import Store
from iadbe.seeds import run_id

STORED = Path(__file__).parents[2] / "results/runs"


def planned(root, store=None, categories=("bolt",)):
    grid = {"detectors": ["padim"], "data": [{"name": "mvtec_ad", "root": str(root), "categories": list(categories)}]}
    return plan.expand(grid, store).runs


@pytest.fixture
def root(tmp_path):
    dataset_trees.mvtec_ad(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def put(store, spec):
    store.save(replace(result("padim", "bolt"), spec=spec))


def whole(root):
    return resolve.make("mvtec_ad", {"root": str(root)}).whole_digest()


def test_the_root_of_all_categories_and_of_one_give_equal_runs(root):
    (one,), (other,) = planned(root), planned(root / "bolt")
    assert run_id(one) == run_id(other)


def test_runs_of_the_first_version_keep_their_place_and_count_as_done(root, store):
    (todays,) = planned(root)
    first = replace(todays, data=whole(root))  # as version 0.1 stored it
    put(store, first)
    (found,) = planned(root, store)
    assert run_id(found) == run_id(first)
    assert store.has(found)
    assert found.place["digest"] == todays.data
    (other,) = planned(root / "bolt", store)  # the folder of the category alone: another digest in version 0.1
    assert store.has(other)
    assert json.loads((store.root / "data.json").read_text()) == {todays.data: first.data}


def test_another_detector_on_the_same_data_gets_the_same_digest(root, store):
    (todays,) = planned(root)
    put(store, replace(todays, data=whole(root), detector="dfm"))
    (found,) = planned(root, store)
    assert found.data == whole(root)
    assert not store.has(found)


def test_new_data_has_todays_digest(root, store):
    (todays,) = planned(root)
    assert planned(root, store) == (todays,)
    put(store, replace(todays, data="0123456789abcdef"))  # the same names with other files
    assert planned(root, store) == (todays,)
    assert not (store.root / "data.json").exists()
    put(store, todays)
    assert planned(root, store) == (todays,)
    put(store, replace(todays, data=whole(root)))
    assert planned(root, store) == (todays,)  # the first that was found stays


def test_a_task_of_several_categories_has_the_digest_of_all_of_them(root):
    dataset = resolve.make("mvtec_ad", {"root": str(root)})
    grid = {"detectors": ["padim"], "data": [{"name": "mvtec_ad", "root": str(root)}]}
    digests = {s.task: s.data for s in plan.expand(grid).runs}
    assert digests == {c: dataset.digest([c]) for c in ("bolt", "nut")}
    (joint,) = plan.expand({**grid, "settings": ["multi_class"]}).runs
    assert joint.data == dataset.digest(["bolt", "nut"]) == dataset.digest()


def test_data_is_recognised_by_any_of_its_digests(root):
    dataset = resolve.make("mvtec_ad", {"root": str(root)})
    (spec,) = planned(root)
    assert data_digests.is_data_of(spec, dataset, ["bolt"])
    assert data_digests.is_data_of(replace(spec, data=whole(root)), dataset, ["bolt"])
    assert data_digests.is_data_of(replace(spec, data=""), dataset, ["bolt"])
    assert data_digests.is_data_of(replace(spec, data="old"), dataset, ["bolt"], {spec.data: "old"})
    assert not data_digests.is_data_of(replace(spec, data="old"), dataset, ["bolt"])


def test_a_damaged_file_is_as_none(tmp_path):
    assert data_digests.read(tmp_path) == {}
    (tmp_path / "data.json").write_text("[1")
    assert data_digests.read(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "root", "params", "task"),
    [
        ("mvtec_ad", "mvtec_ad", {}, "bottle"),
        ("mvtec_ad", "mvtec_ad/transistor", {}, "transistor"),
        ("mtd", "mtd", {}, "magnetic_tile"),
        ("mtd", "mtd", {"split": "image"}, "magnetic_tile"),
    ],
)
def test_the_runs_of_this_repository_are_found_from_either_root(name, root, params, task):
    grid = {"detectors": ["padim"], "data": [{"name": name, "root": str(dataset_trees.real(root)), **params}]}
    specs = [s for s in plan.expand(grid, Store(STORED)).runs if s.task == task]
    stored = {r.spec.data for r in Store(STORED) if (r.spec.dataset, r.spec.task) == (name, task)}
    assert {s.data for s in specs} <= stored
