"""A run from its spec to its result, and the errors on the way."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dataset_trees
from iadbe import api, registry
from iadbe.data.images import Images, View
from iadbe.errors import BadConfig, NoSpace
from iadbe.evaluation import spilled_maps
from iadbe.files import depth
from iadbe.layers.synthetic import textures
from iadbe.running import model_folder, plan
from iadbe.running.run import execute, make, run
from iadbe.running.store import Store
from iadbe.seeds import run_id
from iadbe.types import Options

QUICK = Options(features="off", images=3)


@pytest.fixture(scope="module")
def mvtec(tmp_path_factory):
    """A small category in the MVTec AD layout: a grey field, with a bright square as its defect."""
    root = tmp_path_factory.mktemp("mvtec") / "plate"
    rng = np.random.default_rng(0)

    def write(path, square=False):
        pixels = rng.integers(90, 110, (64, 64, 3), dtype=np.uint8)
        if square:
            pixels[20:36, 20:36] = 220
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    for i in range(8):
        write(root / f"train/good/{i:03d}.png")
    for i in range(4):
        write(root / f"test/good/{i:03d}.png")
        write(root / f"test/square/{i:03d}.png", square=True)
        mask = np.zeros((64, 64), np.uint8)
        mask[20:36, 20:36] = 255
        (root / "ground_truth/square").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / f"ground_truth/square/{i:03d}_mask.png")
    return root.parent


def specs(root, **grid):
    wanted = {"detectors": [{"name": "padim", "dims": 16}], "protocol": "uniform@64", **grid}
    return plan.expand({**wanted, "data": [{"name": "mvtec_ad", "root": str(root)}]}).runs


@pytest.fixture(scope="module")
def spec(mvtec):
    (found,) = specs(mvtec)
    return found


def values(result):
    return {r.metric: r.value for r in result.rows}


def test_a_run_finds_an_obvious_defect_and_says_what_it_cost(spec):
    result = run(spec, QUICK)
    assert result.error == ""
    assert values(result)["image_auroc"] == 1.0
    assert values(result)["pixel_auroc"] > 0.95
    assert len(result.scores) == 8
    assert {"read", "fit", "predict", "metrics", "total"} <= set(result.seconds)
    assert result.latency_ms > 0
    assert result.memory["peak"] > 10**7
    assert result.memory["model"] > 0
    assert result.features == {"computed": 16, "stored": 0}
    assert "c3a343060d8208e2" in result.weights


def test_equal_specs_equal_numbers(spec):
    torch.rand(5)
    np.random.default_rng().random(3)
    first, second = run(spec, QUICK), run(spec, QUICK)
    assert first.rows == second.rows
    assert first.scores == second.scores
    other = run(replace(spec, seed=1), QUICK)
    assert other.scores != first.scores


def test_the_feature_store_spares_the_backbone_and_changes_nothing(spec, tmp_path):
    with_store = replace(QUICK, features=str(tmp_path))
    first, second = run(spec, with_store), run(spec, with_store)
    assert (first.features["computed"], second.features["computed"]) == (16, 0)
    assert second.features["stored"] == 16
    assert first.scores == second.scores == run(spec, QUICK).scores


def test_executed_runs_lie_in_the_store_with_what_was_asked_for(spec, tmp_path):
    store = Store(tmp_path)
    result = execute(spec, store, replace(QUICK, keep_model=True, keep_maps=True))
    folder = store.path(spec)
    assert store.load(folder.name).rows == result.rows
    assert (folder / "model/weights.safetensors").is_file()
    assert len(model_folder.load(folder).learnt) == 8, "the images that calibrate must not take"
    assert len(list((folder / "maps").glob("*.npz"))) == 1
    assert (folder / "images/images.json").is_file()


def test_a_failure_is_a_result(mvtec, tmp_path):
    (broken,) = specs(mvtec, detectors=[{"name": "padim", "layers": [99]}])
    result = execute(broken, Store(tmp_path), QUICK)
    assert "has the layers 0 to 4" in result.error
    assert result.rows == result.scores == ()
    assert Store(tmp_path).has(broken)


def test_an_interrupt_leaves_nothing(spec, tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("iadbe.running.run.measure", interrupted)
    store = Store(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        execute(spec, store, QUICK)
    assert not store.has(spec)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_full_disk_is_not_the_runs_failure(spec, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("iadbe.running.run.artifacts.keep_images", full)
    store = Store(tmp_path)
    with pytest.raises(NoSpace, match="the disk is full"):
        execute(spec, store, QUICK)
    assert not store.has(spec)


def test_a_broken_test_image_is_found_before_the_fit(mvtec, tmp_path, monkeypatch):
    root = tmp_path / "copy"
    shutil.copytree(mvtec, root)
    bad = root / "plate/test/square/002.png"
    bad.write_bytes(bad.read_bytes()[:200])
    monkeypatch.setattr("iadbe.running.run._fit_step", lambda *_: pytest.fail("the fit began"))
    (found,) = specs(root)
    result = run(found, QUICK)
    assert str(bad) in result.error


def test_data_that_changed_since_planning_is_noticed(mvtec, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(mvtec, root)
    (found,) = specs(root)
    (root / "plate/test/good/000.png").unlink()
    assert "has changed since the run was planned" in run(found, QUICK).error


def test_data_of_unknown_place_is_one_sentence(spec):
    assert "where is mvtec_ad" in run(replace(spec, place={}), QUICK).error


def test_one_training_image_is_enough(mvtec):
    (found,) = specs(mvtec, settings=[{"name": "few_shot", "k": 1}])
    result = run(found, QUICK)
    assert result.error == ""
    assert values(result)["image_auroc"] > 0.5


def test_no_defects_gives_scores_and_no_numbers(mvtec, tmp_path):
    root = tmp_path / "copy"
    shutil.copytree(mvtec, root)
    shutil.rmtree(root / "plate/test/square")
    (found,) = specs(root)
    result = run(found, QUICK)
    assert result.error == ""
    assert len(result.scores) == 4
    assert all(math.isnan(v) for v in values(result).values())


@pytest.mark.parametrize(
    ("detector", "note"),
    [
        ({"name": "autoencoder", "epochs": 500}, "training ended with its budget of 0.2 s"),
        ({"name": "padim", "dims": 3}, "took longer than its budget of 0.2 s, which ends training loops only"),
    ],
)
def test_a_budget_ends_training_and_is_noted(mvtec, monkeypatch, detector, note):
    monkeypatch.setattr("iadbe.running.prediction.Images", SlowImages)
    (found,) = specs(mvtec, detectors=[detector], protocol="uniform@64+0.2s")
    result = run(found, QUICK)
    assert result.error == ""
    if detector["name"] == "padim":
        assert result.steps == {}
    else:
        assert 0 <= result.steps["done"] < result.steps["planned"]
    assert note in result.notes[0]
    assert result.rows


def test_what_a_detector_notes_stands_in_the_result(mvtec):
    (found,) = specs(mvtec, detectors=[{"name": "draem", "width": 2, "epochs": 2, "batch": 4}])
    result = run(found, QUICK)
    assert result.error == ""
    assert [note for note in result.notes if "textures=FOLDER" in note] == [textures.DRAWN]


class SlowImages(Images):
    """They take a fifth of a second more than usual."""

    def normal(self):
        time.sleep(0.25)
        return super().normal()


def test_the_protocol_decides_the_view(mvtec):
    (paper,) = specs(mvtec, detectors=[{"name": "padim", "weights": "none", "backbone": "resnet18"}], protocol="paper")
    assert make(paper).view == View(256, 224)
    (small,) = specs(mvtec)
    assert make(small).view == View(64)


@pytest.mark.parametrize("shape", ["short", "nan", "small map"])
def test_a_detector_that_breaks_its_contract_is_an_error(spec, monkeypatch, shape):
    from iadbe.detectors.padim import PaDiM
    from iadbe.types import Prediction

    def predict(self, batch):
        score = torch.zeros(1 if shape == "short" else len(batch))
        if shape == "nan":
            score[0] = math.nan
        return Prediction(score, torch.zeros(len(batch), 8, 8) if shape == "small map" else None)

    monkeypatch.setattr(PaDiM, "predict", predict)
    assert "PaDiM must give" in run(spec, QUICK).error


def test_a_missing_weight_file_is_asked_for(spec):
    lost = replace(spec, detector_params={**spec.detector_params, "weights": "file:w.pth#0123"})
    with pytest.raises(BadConfig, match=r"the file w\.pth is not known"):
        make(lost)


def test_a_budget_of_cpu_time_does_not_count_waiting(mvtec):
    """0.3 s of CPU time end 100 000 epochs; the note says which time."""
    (found,) = specs(mvtec, detectors=[{"name": "autoencoder", "epochs": 100_000}], protocol="uniform@64+0.3cpu-s")
    result = run(found, QUICK)
    assert result.error == ""
    assert 0 <= result.steps["done"] < result.steps["planned"]
    assert "training ended with its budget of 0.3 s of CPU time" in result.notes[0]


def test_every_federated_client_has_the_budget(mvtec, monkeypatch):
    """The first one must not use up the time of the others."""
    seen = []

    def limited(self, share=1.0):
        seen.append(share)
        return nullcontext()

    monkeypatch.setattr("iadbe.running.run.RunRecord.limited", limited)
    setting = {"name": "federated", "clients": 2, "rounds": 3}
    (found,) = specs(mvtec, detectors=[{"name": "autoencoder", "size": 32, "epochs": 3}], settings=[setting])
    assert run(found, QUICK).error == ""
    assert seen == [1 / 3] * 6
    seen.clear()
    (found,) = specs(mvtec, settings=[setting])
    assert run(found, QUICK).error == ""
    assert seen == [1.0] * 2


def test_altered_images_are_tested_altered_and_one_of_them_is_kept(mvtec, tmp_path):
    setting = {"name": "shifted", "kinds": ["rotation"], "strengths": [5]}
    (found,) = specs(mvtec, settings=[setting])
    store = Store(tmp_path)
    result = execute(found, store, replace(QUICK, keep_model=True))
    assert result.error == ""
    by_test = {t: {s.score for s in result.scores if s.test == t} for t in ("plate", "plate, rotation 5")}
    assert all(len(scores) == 8 for scores in by_test.values())
    assert not set.intersection(*by_test.values())
    kept = json.loads((store.path(found) / "images/images.json").read_text())
    assert ["@" in about["sample"] for about in kept] == [False] * 3 + [True]
    turned = np.asarray(Image.open(store.path(found) / f"images/{kept[-1]['n']:02d}_mask.png")) > 0
    assert turned.sum() == pytest.approx(16 * 16, rel=0.1)  # the square, on its corner
    assert turned.any(0).sum() == pytest.approx(16 * 2**0.5, abs=2)


def test_images_are_kept_of_the_last_step_only(mvtec, tmp_path):
    shutil.copytree(mvtec / "plate", tmp_path / "data/other")
    shutil.copytree(mvtec / "plate", tmp_path / "data/plate")
    (found,) = specs(tmp_path / "data", settings=["continual"])
    store = Store(tmp_path / "store")
    result = execute(found, store, QUICK)
    assert result.error == ""
    assert {(r.step, r.test) for r in result.rows} == {(0, "other"), (1, "other"), (1, "plate")}
    kept = json.loads((store.path(found) / "images/images.json").read_text())
    assert sorted(about["category"] for about in kept) == ["other"] * 3 + ["plate"] * 3


@pytest.mark.parametrize(
    ("place", "protocol", "sentence"),
    [
        (
            "flower",
            "uniform@64+60s",
            "Flower's clients keep no budget of time, train in fp32 and accumulate no batches. Take --federation",
        ),
        ("flour", "uniform@64", "there is no federation 'flour'. Did you mean flower?"),
        ("flower", "uniform@64", "Flower is not installed. Install it with: pip install 'iadbe[flower]'"),
    ],
)
def test_clients_that_cannot_learn_elsewhere_are_refused_with_the_reason(mvtec, place, protocol, sentence):
    if sentence.startswith("Flower is not") and find_spec("flwr") is not None:
        pytest.skip("Flower is in this environment")
    (one,) = specs(mvtec, protocol=protocol, settings=[{"name": "federated", "clients": 2}])
    assert run(one, replace(QUICK, federation=place)).error.startswith(sentence)


class TestDepth:
    """A detector that needs depth gets it wherever the data has it, and nobody else pays for it."""

    def planned(self, data, detector="depth_detector:Heights"):
        registry.trust("depth_detector:Heights")
        return plan.expand({"detectors": [detector], "data": [data], "protocol": "uniform@32"})

    def test_from_point_clouds(self, tmp_path):
        pytest.importorskip("tifffile")
        root = dataset_trees.mvtec_3d(tmp_path / "data")["root"]
        for file in Path(root).glob("*/test/hole/xyz/*.tiff"):
            dataset_trees.draw_points(file, bump=3.0)
        (spec, _) = self.planned({"name": "mvtec_3d", "root": root}).runs
        store = Store(tmp_path / "store")
        result = execute(spec, store, replace(QUICK, keep_model=True))
        assert result.error == ""
        assert {r.metric: r.value for r in result.rows}["image_auroc"] == 1.0
        with pytest.raises(BadConfig, match="Heights needs depth, which images alone do not have"):
            api.predict(store.path(spec), str(root))
        rows = api.test(store.path(spec), "mvtec_3d", categories=[spec.task], root=root)
        assert rows[spec.task]["image_auroc"] == 1.0

    def test_from_images_of_levels(self, tmp_path):
        (spec, _) = self.planned({"name": "eyecandies", **dataset_trees.eyecandies(tmp_path / "data")}).runs
        assert run(spec, QUICK).error == ""

    def test_of_the_toy_data(self):
        (spec,) = self.planned({"name": "toy", "count": 4, "depth": True}).runs
        assert spec.task == "casting"
        assert run(spec, QUICK).error == ""

    def test_without_any_the_plan_says_so(self):
        found = self.planned({"name": "toy", "categories": ["metal"]})
        assert not found.runs
        assert "it needs depth, which neither the data nor the setting gives" in str(found.skipped[0])

    def test_who_does_not_need_it_does_not_read_it(self, tmp_path, monkeypatch):
        root = dataset_trees.eyecandies(tmp_path / "data")
        monkeypatch.setattr(depth, "read", lambda path: pytest.fail(f"{path} was read"))
        (spec, _) = self.planned({"name": "eyecandies", **root}, {"name": "padim", "dims": 8, "weights": "none"}).runs
        assert run(spec, QUICK).error == ""


def test_what_this_machine_lacks_is_no_result(mvtec, tmp_path, monkeypatch):
    (one,) = specs(mvtec)
    store = Store(tmp_path)
    result = execute(one, store, replace(QUICK, device="cuda:99"))
    assert (result.transient, "not on this machine" in result.error) == (True, True)
    assert not store.has(one)
    assert list((tmp_path / ".part").iterdir()) == []
    assert execute(one, store, QUICK).error == ""
    assert store.load(store.path(one).name).transient is False


@pytest.mark.parametrize(
    "option", [{"engine": "tensorrt"}, {"device": "banana"}, {"device": "meta"}, {"device": "xpu:7"}, {"device": "hpu"}]
)
def test_an_option_of_how_to_run_that_is_wrong_is_no_result(option, mvtec, tmp_path):
    (one,) = specs(mvtec)
    store = Store(tmp_path)
    result = execute(one, store, replace(QUICK, **option))
    assert next(iter(option.values())).partition(":")[0] in result.error
    assert not store.has(one), "the same run with another option would count as done"


class TestGeometry:
    @pytest.fixture
    def strips(self, tmp_path):
        """Strips of 32 x 96 pixels with a bright square as the defect."""
        rng = np.random.default_rng(0)

        def write(path, square=False):
            pixels = rng.integers(90, 110, (32, 96, 3), dtype=np.uint8)
            pixels[8:20, 40:52] = 220 if square else pixels[8:20, 40:52]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)

        for i in range(6):
            write(tmp_path / f"strip/train/good/{i:03d}.png")
        for i in range(3):
            write(tmp_path / f"strip/test/good/{i:03d}.png")
            write(tmp_path / f"strip/test/square/{i:03d}.png", square=True)
            mask = np.zeros((32, 96), np.uint8)
            mask[8:20, 40:52] = 255
            (tmp_path / "strip/ground_truth/square").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(tmp_path / f"strip/ground_truth/square/{i:03d}_mask.png")
        return tmp_path

    def test_padded_rectangular_and_native(self, strips, tmp_path):
        (spec,) = specs(strips, protocol="uniform@96x64,pad,native", metrics=["image_auroc", "pixel_auroc"])
        folder = tmp_path / "out"
        done = run(spec, replace(QUICK, keep_model=True), folder)
        assert done.error == ""
        assert {row.metric: row.value for row in done.rows}["image_auroc"] == 1
        assert {row.metric: row.value for row in done.rows}["pixel_auroc"] > 0.9
        region = np.asarray(Image.open(folder / "images/00_region.png"))
        assert region.shape == (64, 96)
        assert (region > 0).sum() == 32 * 96
        assert (region[16:48] > 0).all()
        (found,) = api.predict(folder / "model", strips / "strip/test/square/000.png")
        assert found.map.shape == (32, 96)
        y, x = np.unravel_index(found.map.argmax(), found.map.shape)
        assert 4 <= y < 24
        assert 36 <= x < 56

    def test_a_run_of_the_default_view_keeps_its_id(self, mvtec):
        ids = {protocol: run_id(specs(mvtec, protocol=protocol)[0]) for protocol in ("uniform", "uniform@256,squash")}
        assert ids["uniform"] == ids["uniform@256,squash"]


def test_a_native_view_in_automatic_tiles_is_told_and_kept(mvtec, tmp_path):
    (spec,) = specs(mvtec, protocol="uniform@native,tiles=auto")
    store = Store(tmp_path)
    found = execute(spec, store, replace(QUICK, keep_model=True))
    assert not found.error
    assert "the view is the images' own: 64 x 64 pixels (height x width)." in found.notes
    assert any(note.endswith("for a view of 64 x 64: tiles=512/64.") for note in found.notes)
    fitted = model_folder.load(store.find(run_id(spec)))
    assert fitted.detector.view == View(64)
    assert str(fitted.detector.tiling) == "512/64"


def test_images_of_several_sizes_have_no_native_view(mvtec, tmp_path):
    root = tmp_path / "mvtec"
    shutil.copytree(mvtec, root)
    Image.new("RGB", (80, 64)).save(root / "plate/test/good/000.png")
    (spec,) = specs(root, protocol="uniform@native")
    assert "2 sizes, from 64 x 64 to 80 x 64" in run(spec, QUICK).error


class TestRegionsOfCategories:
    """A model of several categories has one region, because an image does not say its category."""

    @pytest.fixture
    def root(self, mvtec, tmp_path):
        for name in ("one", "other"):
            shutil.copytree(mvtec / "plate", tmp_path / "data" / name)
        return tmp_path / "data"

    def run(self, root, regions, keep_model=True):
        (root / "roi.yaml").write_text(json.dumps(regions), encoding="utf-8")
        data = {"name": "mvtec_ad", "root": str(root), "roi": "roi.yaml", "categories": ["one", "other"]}
        wanted = {"detectors": ["golden"], "settings": ["multi_class"], "protocol": "uniform@64"}
        (spec,) = plan.expand({**wanted, "data": [data]}).runs
        store = Store(root.parent / "runs")
        return execute(spec, store, replace(QUICK, keep_model=keep_model)), store.path(spec)

    LEFT, RIGHT = ([[[x, 0], [x + 31, 0], [x + 31, 63], [x, 63]]] for x in (0, 32))

    @pytest.mark.parametrize("regions", [{"one": LEFT, "other": RIGHT}, {"one": LEFT}])
    def test_different_ones_are_refused_before_anything_is_learnt(self, root, regions):
        result, _ = self.run(root, regions)
        assert "one and other have different regions" in result.error
        assert "Train each category alone" in result.error
        assert "fit" not in result.seconds
        assert self.run(root, regions, keep_model=False)[0].error == ""

    def test_the_same_is_kept(self, root):
        result, folder = self.run(root, {"one": self.LEFT, "other": self.LEFT})
        assert result.error == ""
        assert model_folder.load(folder / "model").region[:, :32].all()


def test_maps_that_are_too_many_for_memory_change_nothing(spec, monkeypatch, tmp_path):
    store, options = Store(tmp_path), replace(QUICK, keep_maps=True)
    expected = execute(spec, store, options)
    kept = {name: np.load(next(store.path(spec).glob("maps/*.npz")))[name] for name in ("maps", "ids")}
    monkeypatch.setattr(spilled_maps, "IN_MEMORY", 3 * 64 * 64 * 4)
    found = execute(spec, store, options)
    assert found.error == expected.error == ""
    assert values(found) == pytest.approx(values(expected))
    assert [s.score for s in found.scores] == [s.score for s in expected.scores]
    again = np.load(next(store.path(spec).glob("maps/*.npz")))
    assert all(np.array_equal(again[name], kept[name]) for name in kept)
    assert not list((tmp_path / ".part").iterdir())


BRIGHT = """
from iadbe.detector import Detector, Prediction

class Bright(Detector):
    kind = "baseline"
    can = frozenset({"localise"})

    def __init__(self):
        super().__init__()

    def fit(self, train, rng):
        pass

    def predict(self, batch):
        map_ = batch.image.mean(1)
        return Prediction(map_.amax((1, 2)), map_)
"""
SCRIPT = """
import sys
from pathlib import Path
from iadbe import registry, system
from iadbe.data import images
from iadbe.evaluation import spilled_maps
from iadbe.running import plan
from iadbe.running.run import execute
from iadbe.running.store import Store
from iadbe.types import Options

images.CACHE_BYTES = spilled_maps.IN_MEMORY = 2**24
registry.trust_written(["bright:Bright"])
data = {"name": "mvtec_ad", "root": sys.argv[1]}
(spec,) = plan.expand({"detectors": ["bright:Bright"], "protocol": "uniform@native", "data": [data]}).runs
result = execute(spec, Store(Path(sys.argv[1]).parent / "runs"), Options("cpu", features="off", images=2))
assert not result.error, result.error
print(system.peak_memory(), *(row.value for row in result.rows if row.metric == "pixel_auroc"))
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_large_maps(tmp_path):
    """Of 40 more images of 1 024 x 1 024 the maps alone would take 168 MB, with masks and sorted scores 420 MB."""
    (tmp_path / "bright.py").write_text(BRIGHT, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), *filter(None, [environment.get("PYTHONPATH")])])
    peaks = []
    for count in (8, 48):
        root = tmp_path / str(count) / "board"
        for kind, number in (("train/good", 1), ("test/good", count // 2), ("test/spot", count // 2)):
            (root / kind).mkdir(parents=True)
            for i in range(number):
                pixels, mask = np.full((1024, 1024), 90, np.uint8), np.zeros((1024, 1024), np.uint8)
                mask[100 + i : 120 + i, 200:220] = 255 * (kind == "test/spot")
                pixels[mask > 0] = 220
                Image.fromarray(pixels).save(root / f"{kind}/{i:03}.png", compress_level=1)
                if mask.any():
                    (root / "ground_truth/spot").mkdir(parents=True, exist_ok=True)
                    Image.fromarray(mask).save(root / f"ground_truth/spot/{i:03}_mask.png", compress_level=1)
        command = [sys.executable, "-c", SCRIPT, str(root.parent)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        peak, auroc = done.stdout.split()[-2:]
        assert float(auroc) == 1
        peaks.append(int(peak))
    assert peaks[1] - peaks[0] < 80e6, peaks
