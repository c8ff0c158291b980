"""From a small model and unseen good parts to a threshold with a guarantee, and the verdicts that follow from it."""

import csv
import io
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iadbe import api
from iadbe.data.images import Images, View
from iadbe.datasets.folder import Folder
from iadbe.detectors.dfkde import DFKDE
from iadbe.running import artifacts, model_folder
from iadbe.types import Options, Step, TrainingImage
from part_images import draw, draw_parts


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """Parts that a small DFM has learnt, 30 new good ones, and 6 defective ones."""
    root = tmp_path_factory.mktemp("factory")
    draw_parts(root / "old", good=12, bad=2)
    for i in range(30):
        draw(root / f"new/{i}.png", 200 + i)
    for i in range(6):
        draw(root / f"bad/{i}.png", 300 + i, spot=True)
    how = {"protocol": "uniform@64", "store": root / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("dfm", str(root / "old"), backbone="test_resnet", weights="none", **how)
    return SimpleNamespace(root=root, old=root / "old/good", new=root / "new", bad=root / "bad", run=trained.folder)


@pytest.fixture
def model(factory, elsewhere):
    """Return a model's folder of one's own that knows what it learnt: the first 8 of the old parts."""
    folder = elsewhere / "model"
    shutil.copytree(factory.run / "model", folder)
    old = Folder(root=str(factory.root / "old"))
    taught = [s for s in old.samples() if s.defect == "good" and int(s.image.split("/")[-1].split(".")[0]) < 8]
    found = model_folder.load(folder)
    digests = artifacts.training_digests(old, [Step((tuple(map(TrainingImage, taught)),), {})], found.detector.view)
    assert len(digests) == 8
    return model_folder.save(folder, found.detector, found.name, found.params, found.calibration, found.about, digests)


def card(folder):
    return json.loads((folder / "detector.json").read_text(encoding="utf-8"))


def rows(output):
    return [json.loads(line) for line in output.out.splitlines()]


def test_from_good_parts_to_verdicts(iadbe, factory, model):
    output = iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.1", "--bad", factory.bad)
    assert (output.code, output.err) == (0, "")
    assert "at most 10 % overkill, guaranteed by 30 good images" in output.out
    assert "overkill: at most 9.68 % on average over such samples of 30 good images; in this one at most" in output.out
    assert "escape: " in output.out
    kept = card(model)["calibration"]
    good = rows(iadbe("predict", model, factory.new, "--format", "jsonl"))
    assert {row["threshold"] for row in good} == {kept["threshold"]}
    assert sum(row["defective"] for row in good) == 2  # of 30: those above the 28th
    assert all((row["scaled"] >= 0.5) == row["defective"] == (row["score"] >= row["threshold"]) for row in good)
    assert np.median([row["scaled"] for row in good]) == pytest.approx(0.1, abs=0.01)
    bad = rows(iadbe("predict", model, factory.bad, "--format", "jsonl"))
    assert sum(not row["defective"] for row in bad) == round(6 * kept["escape"]["value"]) < 6
    shown = iadbe("predict", model, factory.bad)
    assert f"threshold {kept['threshold']:.4g}: at most 10 % overkill, guaranteed by 30 good images" in shown.out
    assert "with 95 % confidence" in shown.out
    assert "0.1 at the median good part" in shown.out


def test_two_thresholds_give_three_verdicts(iadbe, factory, model):
    output = iadbe("calibrate", model, "--good", factory.new, "--look", "0.2", "--reject", "0.05")
    assert (output.code, output.err) == (0, "")
    assert "good parts to look at, or rejected: at most 19.4 % on average" in output.out
    kept = card(model)["calibration"]
    good = rows(iadbe("predict", model, factory.new, "--format", "jsonl"))
    verdicts = [row["verdict"] for row in good]
    assert {verdict: verdicts.count(verdict) for verdict in set(verdicts)} == {"good": 25, "look": 5}
    assert all((row["verdict"] == "look") == (row["score"] >= kept["look_threshold"]) for row in good)
    assert not any(row["defective"] for row in good)
    shown = iadbe("predict", model, factory.new).out
    assert [line.split()[1] for line in shown.splitlines()[:30]] == verdicts
    assert "look at it from" in shown
    given = rows(iadbe("predict", model, factory.new, "--format", "jsonl", "--threshold", "1e9"))
    assert {row["verdict"] for row in given} == {"good"}, "a given threshold decides alone"


def test_verdicts_follow_from_regions(iadbe, factory, model, elsewhere):
    asked = ("calibrate", model, "--good", factory.new, "--bad", factory.bad, "--look", "0.2", "--reject", "0.05")
    output = iadbe(*asked, "--min-area", "40")
    assert (output.code, output.err) == (0, "")
    assert "reject with regions of at least 40 pixels from a map value of" in output.out
    kept = card(model)["calibration"]
    assert kept["rule"] == {"min_area": 40, "max_count": 0, "zones": []}
    good, bad = (rows(iadbe("predict", model, f, "--format", "jsonl")) for f in (factory.new, factory.bad))
    assert sorted(row["verdict"] for row in good) == ["good"] * 25 + ["look"] * 5
    assert sum(row["verdict"] == "good" for row in bad) == round(6 * kept["escape"]["value"]) < 6
    assert all((row["verdict"] == "good") == (not row["regions"]) for row in good + bad)
    found = next(row for row in bad if row["verdict"] == "reject")["regions"][0]
    assert found["area"] >= 40
    assert found["peak"] >= kept["pixel_threshold"]
    assert found["area"] <= found["box"][2] * found["box"][3] <= 64 * 64
    python = list(api.predict(model, [factory.bad], device="cpu"))
    assert [image.verdict for image in python] == [row["verdict"] for row in bad]
    assert [len(image.regions) for image in python] == [len(row["regions"]) for row in bad]
    given = rows(iadbe("predict", model, factory.bad, "--format", "jsonl", "--threshold", "-1000000"))
    assert {row["verdict"] for row in given} == {"reject"}, "a given threshold decides alone"


def test_parts_have_one_verdict(iadbe, factory, model):
    asked = ("calibrate", model, "--good", factory.new, "--bad", factory.bad, "--part", r"(\d)\.png$")
    output = iadbe(*asked, "--overkill", "0.1")
    assert "guaranteed by 10 good parts" in output.out
    predict = ("predict", model, factory.new, "--part", r"(\d)\.png$", "--format", "jsonl")
    good = rows(iadbe(*predict))
    assert [len(part["images"]) for part in good] == [3] * 10
    assert sum(part["verdict"] == "reject" for part in good) == 0
    assert all(part["score"] == max(image["score"] for image in part["images"]) for part in good)
    combined = iadbe(*asked, "--overkill", "0.2", "--combine", "fisher")
    assert "guaranteed by 5 good parts, views combined" in combined.out
    kept = card(model)["calibration"]["combination"]
    bad = rows(iadbe("predict", model, factory.bad, *predict[3:]))
    assert all((part["verdict"] == "reject") == (part["score"] >= kept["threshold"]) for part in bad)
    python = api.predict_parts(model, [factory.bad], part=r"(\d)\.png$", device="cpu")
    assert [(part.name, part.score, part.verdict) for part in python] == [
        (part["part"], pytest.approx(part["score"]), part["verdict"]) for part in bad
    ]


def test_tolerated_regions_and_zones(iadbe, factory, model, elsewhere):
    mask = np.zeros((64, 64), np.uint8)
    mask[:, :32] = 255
    Image.fromarray(mask).save(elsewhere / "left.png")
    asked = ("calibrate", model, "--good", factory.new, "--bad", factory.bad, "--overkill", "0.1", "--max-count", "1")
    output = iadbe(*asked, "--zones", "left.png")
    assert (output.code, output.err) == (0, "")
    kept = card(model)["calibration"]
    bad = rows(iadbe("predict", model, factory.bad, "--format", "jsonl"))
    assert sum(row["verdict"] == "good" for row in bad) == round(6 * kept["escape"]["value"])
    assert all((row["verdict"] == "good") == (len(row["regions"]) <= 1) for row in bad)
    assert {region["zone"] for row in bad for region in row["regions"]} <= {"left", None}
    fixed = iadbe(*asked, "--zones", "left.png", "--zone-threshold", "left=-1e9", "--min-area", "2")
    assert fixed.code == 0, "one region is tolerated, and the zone is one"
    none = iadbe(*asked[:-2], "--zones", "left.png", "--zone-threshold", "left=-1e9")
    assert "the zones' own thresholds alone reject more of the good images than are allowed" in none.err


def test_a_guarantee_with_confidence_says_so(iadbe, factory, model):
    output = iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.1", "--confidence", "0.95")
    assert output.code == 0
    assert "at most 10 % overkill with 95 % confidence, guaranteed by 30 good images" in output.out
    assert "overkill: at most 9.5 % with 95 % confidence, by 30 good images" in output.out
    few = iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.05", "--confidence", "0.95")
    assert "with 95 % confidence takes 59 good images that the detector has not learnt, and there are 30" in few.err
    assert "without a confidence, on average, it takes 19" in few.err


def test_images_of_one_group_count_as_one(iadbe, factory, model):
    asked = ("calibrate", model, "--good", factory.new, "--bad", factory.bad, "--group", r"(\d)\.png$")
    output = iadbe(*asked, "--overkill", "0.1")
    assert output.code == 0
    assert "guaranteed by 10 good image groups" in output.out
    assert "of 6 defective image groups" in output.out
    assert (card(model)["calibration"]["good"], card(model)["calibration"]["unit"]) == (10, "image groups")
    few = iadbe(*asked, "--overkill", "0.05")
    assert few.code != 0
    assert "takes 19 good image groups that the detector has not learnt, and there are 10" in few.err
    wrong = iadbe(*asked[:-1], "(", "--overkill", "0.1")
    assert "group '(' is not a regular expression" in wrong.err


def test_an_images_place_on_the_scale_depends_on_no_other_and_csv_has_it(iadbe, factory, model):
    iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.1")
    paths = sorted(factory.new.iterdir())[:5]
    together = iadbe("predict", model, *paths, factory.bad, "--format", "csv").out
    table = {row["path"]: row for row in csv.DictReader(io.StringIO(together))}
    assert together.partition("\n")[0] == "path,score,scaled,defective,threshold,error,position_found,verdict"
    for path in paths:
        (alone,) = rows(iadbe("predict", model, path, "--format", "jsonl", "--threshold", "1e9"))
        assert float(table[str(path)]["scaled"]) == pytest.approx(alone["scaled"], rel=1e-3)
        assert alone["defective"] is False, "a given threshold decides, and the scale stays"


def test_few_enough_good_parts_show_a_pixel(iadbe, factory, model, elsewhere):
    iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.1")
    assert iadbe("predict", model, factory.new, "--out", "heat").code == 0
    marked = 0
    for file in sorted((elsewhere / "heat").glob("*_mask.png")):
        with Image.open(file) as mask:
            marked += bool(np.asarray(mask).any())
    assert marked == 2


def test_what_was_learnt_is_left_out_whatever_its_name(iadbe, factory, model, elsewhere):
    output = iadbe("calibrate", model, "--good", factory.new, factory.old, "--overkill", "0.1", "--json")
    assert "8 of 42 good images are left out: the detector has learnt them." in output.err
    assert json.loads(output.out)["good"] == 34
    for i in range(8):
        with Image.open(factory.old / f"{i}.png") as image:
            image.save(elsewhere / f"x{i}.bmp")
    output = iadbe("calibrate", model, "--good", "*.bmp", "--overkill", "0.3")
    assert (output.code, output.err.count("\n")) == (1, 1)
    assert "takes 3 good images that the detector has not learnt, and there are 0 beside 8 that it has" in output.err


def test_a_second_calibration_replaces_the_first(iadbe, factory, model):
    iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.1", "--bad", factory.bad)
    first = card(model)
    iadbe("calibrate", model, "--good", factory.new, "--overkill", "0.3")
    second = card(model)
    assert second["calibration"]["threshold"] < first["calibration"]["threshold"]
    assert (second["calibration"]["escape"], second["calibration"]["bad"]) == (None, 0)
    assert {**first, "calibration": 0} == {**second, "calibration": 0}
    assert sorted(p.name for p in model.iterdir()) == ["detector.json", "drift.json", "weights.safetensors"]


@pytest.mark.parametrize("criterion", [("--escape", "0"), ("--cost", "50"), ("--cost", "50", "--defects", "0.01")])
def test_from_labelled_images(iadbe, factory, model, criterion):
    output = iadbe("calibrate", model, "--good", factory.new, "--bad", factory.bad, *criterion)
    assert (output.code, output.err) == (0, "")
    found = card(model)["calibration"]
    good, bad = (rows(iadbe("predict", model, f, "--format", "jsonl")) for f in (factory.new, factory.bad))
    assert sum(row["defective"] for row in good) == round(30 * found["overkill"]["value"])
    assert sum(not row["defective"] for row in bad) == round(6 * found["escape"]["value"])
    assert found["overkill"]["low"] <= found["overkill"]["value"] < found["overkill"]["high"]
    assert "interval" in output.out


def test_a_runs_id_will_do_and_a_model_without_a_list_is_warned_of(iadbe, factory):
    content = card(factory.run / "model")
    content.pop("learnt", None)  # as earlier versions wrote it
    (factory.run / "model/detector.json").write_text(json.dumps(content))
    short = factory.run.name.rpartition("-")[2][:8]
    output = iadbe("calibrate", short, "--store", factory.root / "runs", "--good", factory.new, "--overkill", "0.1")
    assert output.code == 0
    assert "does not say what it learnt" in output.err
    assert card(factory.run / "model")["calibration"]["good"] == 30


def test_a_detector_without_maps(iadbe, factory, elsewhere):
    old = Folder(root=str(factory.root / "old"))
    dfkde = DFKDE(weights="none")
    dfkde.view = View(64)
    good = [TrainingImage(s) for s in old.samples() if s.defect == "good"]
    dfkde.fit(Images(old, good, View(64)), np.random.default_rng(0))
    model_folder.save(elsewhere / "model", dfkde, "dfkde", {"weights": "none"}, learnt=[])
    output = iadbe("calibrate", "model", "--good", factory.new, "--overkill", "0.1")
    assert output.code == 0
    assert "no threshold for pixels" in output.out
    assert card(elsewhere / "model")["calibration"]["pixel_threshold"] is None
    ruled = iadbe("calibrate", "model", "--good", factory.new, "--overkill", "0.1", "--min-area", "9")
    assert "does not say where defects are, so there are no regions" in ruled.err


def test_what_is_there_twice_counts_once_and_what_cannot_be_read_not_at_all(iadbe, factory, model, elsewhere):
    shutil.copytree(factory.new, elsewhere / "good")
    shutil.copy(factory.new / "0.png", elsewhere / "good/again.png")
    (elsewhere / "good/broken.png").write_bytes(b"nonsense")
    output = iadbe("calibrate", model, "--good", "good", "--overkill", "0.1", "--json")
    assert "1 of 32 good images are left out: they are there twice." in output.err
    assert "broken.png cannot be read" in output.err
    assert json.loads(output.out)["good"] == 30


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which model?"),
        (["{model}"], 2, "which good images?"),
        (["{new}", "--good", "{new}"], 1, "is not a model folder"),
        (["{model}", "--good", "none"], 1, "is no file, no folder and no pattern"),
        (["{model}", "--good", "{new}"], 1, "takes 99 good images"),
        (["{model}", "--good", "{new}", "--overkill", "1%"], 2, "--overkill takes a number"),
        (["{model}", "--good", "{new}", "--overkill", "5"], 1, "overkill is a share"),
        (["{model}", "--good", "{new}", "--escape", "0.1"], 1, "give some as bad"),
        (["{model}", "--good", "{new}", "--overkill", "0.1", "--cost", "3"], 1, "give one of them"),
        (["{model}", "--good", "{new}", "--bad", "{new}", "--cost", "3"], 1, "is it good or defective?"),
        (["{model}", "--good", "{new}", "--overkill", "0.1", "--reject", "0.1"], 2, "are the same share"),
        (["{model}", "--good", "{new}", "--look", "0.1", "--reject", "0.1"], 1, "look is the larger share"),
        (["{model}", "--good", "{new}", "--overkill", "0.1", "--min-area", "-1"], 1, "min_area is a number of pixels"),
        (["{model}", "--good", "{new}", "--overkill", "0.1", "--zones", "no.json"], 1, "there is no file"),
        (["{model}", "--good", "{new}", "--zones", "no.json", "--zone-threshold", "a"], 2, "takes NAME=X"),
        (["{model}", "--good", "{new}", "--overkill", "0.1", "--zone-threshold", "a=1"], 1, "need a file of zones"),
        (
            ["{model}", "--good", "{new}", "--bad", "{new}", "--escape", "0.1", "--min-area", "9"],
            1,
            "belong to overkill",
        ),
        (["{model}", "--good", "{new}", "--group", "x", "--part", "x"], 1, "group and part are the same rule"),
        (["{model}", "--good", "{new}", "--combine", "fisher"], 1, "images are combined by part"),
        (["{model}", "--good", "{new}", "--combine", "mean"], 1, "there is no combination 'mean'"),
        (["{model}", "--good", "{new}", "--overkil", "0.1"], 2, "Did you mean --overkill"),
    ],
)
def test_mistakes_are_one_sentence_and_change_nothing(iadbe, factory, model, arguments, code, sentence):
    before = (model / "detector.json").read_bytes()
    output = iadbe("calibrate", *(word.format(model=model, new=factory.new) for word in arguments))
    assert (output.code, output.out) == (code, "")
    assert sentence in output.err
    assert output.err.count("\n") == 1
    assert (model / "detector.json").read_bytes() == before
