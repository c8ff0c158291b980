import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw_video
from iadbe.networks import engines
from iadbe.running import model_folder
from part_images import draw


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_scores_as_a_table_json_lines_and_csv_are_the_same(iadbe, workspace):
    arguments = ["predict", workspace.padim, workspace.parts / "scratch", workspace.parts / "good/1*.png"]
    output = iadbe(*arguments, "--format", "jsonl")
    rows = lines(output.out)
    assert (output.code, len(rows)) == (0, 4 + 3)
    assert [row["defective"] for row in rows] == [True] * 4 + [False] * 3
    table = list(csv.DictReader(io.StringIO(iadbe(*arguments, "--format", "csv").out)))
    assert [float(row["score"]) for row in table] == [row["score"] for row in rows]
    assert [float(row["scaled"]) for row in table] == [row["scaled"] for row in rows]
    assert all(0 <= row["scaled"] <= 1 and (row["scaled"] >= 0.5) == row["defective"] for row in rows)
    shown = iadbe(*arguments).out
    assert [line.split()[1] for line in shown.splitlines()[:7]] == ["DEFECT"] * 4 + ["good"] * 3
    assert [line.split()[2] for line in shown.splitlines()[:7]] == [f"{row['scaled']:.3f}" for row in rows]
    assert "threshold" in shown


def test_a_threshold_can_be_given(iadbe, workspace):
    output = iadbe("predict", workspace.padim, workspace.parts / "good/1.png", "--format", "jsonl", "--threshold", "-1")
    (row,) = lines(output.out)
    assert (row["defective"], row["threshold"]) == (True, -1.0)


def test_a_run_is_known_by_the_beginning_of_its_id(iadbe, workspace):
    short = workspace.padim.name.rpartition("-")[2][:6]
    output = iadbe("predict", short, workspace.parts / "good/0.png", "--store", workspace.store, "--format", "jsonl")
    assert lines(output.out)[0]["defective"] is False


def test_images_are_written_apart_at_their_own_size_and_never_over_one_another(iadbe, workspace, elsewhere):
    for folder in ("a", "b", "b/a"):
        draw(elsewhere / folder / "0.png", 5, spot=True)
    Image.fromarray(np.zeros((30, 50, 3), np.uint8)).save(elsewhere / "a/wide.png")
    output = iadbe("predict", workspace.padim, "a", "b", "--out", "heat", "--pixel-threshold", "5")
    assert output.code == 0
    assert "4 heat maps are in heat" in output.out
    made = {path.name for path in (elsewhere / "heat").iterdir()}
    assert made == {
        f"{stem}_{kind}.png" for stem in ("a_0", "wide", "b_0", "a_0_2") for kind in ("heat", "mask", "overlay")
    }  # fmt: skip
    with Image.open(elsewhere / "heat/wide_heat.png") as heat, Image.open(elsewhere / "heat/wide_mask.png") as mask:
        assert heat.size == mask.size == (50, 30)


def test_the_heat_is_where_the_defect_is(iadbe, workspace, elsewhere):
    mask = draw(elsewhere / "x.png", 7, spot=True)
    iadbe("predict", workspace.padim, "x.png", "--out", "heat")
    with Image.open(elsewhere / "heat/x_heat.png") as heat:
        light = np.asarray(heat).astype(float).sum(2)
    assert light[mask].mean() > 2 * light[~mask].mean()
    assert not (elsewhere / "heat/x_mask.png").exists(), "without a threshold for pixels there is no mask"


def test_what_does_not_count_is_grey_in_what_is_written(iadbe, workspace, elsewhere, monkeypatch):
    load, left = model_folder.load, np.arange(64)[None, :].repeat(64, 0) < 32

    def with_region(*given):
        found = load(*given)
        object.__setattr__(found, "region", left)
        return found

    monkeypatch.setattr(model_folder, "load", with_region)
    draw(elsewhere / "x.png", 7, spot=True)
    iadbe("predict", workspace.padim, "x.png", "--out", "heat")
    for kind in ("heat", "overlay"):
        with Image.open(elsewhere / f"heat/x_{kind}.png") as drawn:
            colour = np.ptp(np.asarray(drawn).astype(int), axis=2)
        assert colour[:, 33:].max() == 0
        assert colour[:, :31].max() > 0


def test_a_mask_is_drawn_where_the_model_has_a_threshold_for_pixels(iadbe, workspace, elsewhere, monkeypatch):
    load = model_folder.load

    def with_pixel_threshold(*given):
        found = load(*given)
        object.__setattr__(found.calibration, "pixel_threshold", 5.0)
        return found

    monkeypatch.setattr(model_folder, "load", with_pixel_threshold)
    mask = draw(elsewhere / "x.png", 7, spot=True)
    iadbe("predict", workspace.padim, "x.png", "--out", "heat")
    with Image.open(elsewhere / "heat/x_mask.png") as drawn:
        assert (np.asarray(drawn) > 0)[mask].mean() > 0.5


def test_a_detector_without_maps_says_so(iadbe, workspace, elsewhere):
    output = iadbe("predict", workspace.dfkde, workspace.parts / "good/0.png", "--out", "heat")
    assert output.code == 0
    assert "there are no heat maps: dfkde does not say where defects are" in output.out
    assert not (elsewhere / "heat").exists()


def test_one_bad_image_does_not_stop_the_others(iadbe, workspace, elsewhere):
    (elsewhere / "a.png").write_bytes(b"nonsense")
    draw(elsewhere / "b.png", 0)
    output = iadbe("predict", workspace.padim, "a.png", "b.png", "--format", "jsonl")
    bad, good = lines(output.out)
    assert output.code == 1
    assert bad["score"] is None
    assert "a.png cannot be read" in bad["error"]
    assert good["error"] is None
    assert "failed" in iadbe("predict", workspace.padim, "a.png").out


def test_the_earlier_tools_options_work(iadbe, workspace):
    arguments = [
        "--model",
        "anomalib.models.Padim",
        "--data",
        workspace.parts / "scratch/0.png",
        "--ckpt_path",
        workspace.padim,
    ]
    output = iadbe("predict", *arguments, "--return_predictions")
    assert output.code == 0
    assert "0.png" in output.out
    assert "not used here: return_predictions" in output.err


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which model?"),
        (["{padim}"], 2, "which images?"),
        (["{parts}", "{parts}"], 1, "is not a model folder"),
        (["runs/none", "x.png"], 1, "there is no folder"),
        (["none", "x.png"], 1, "'none'"),
        (["model.ckpt", "x.png"], 1, "made by another tool"),
        (["{padim}", "none.png"], 1, "is no file, no folder and no pattern"),
        (["{padim}", "."], 1, "has no images or videos in it"),
        (["{padim}", "toy"], 1, "For its test images write --data toy"),
        (["{padim}", "anomalib.data.MVTec"], 1, "For its test images write --data anomalib.data.MVTec"),
        (
            ["{padim}", "{parts}/good/0.png", "--out", "{parts}/good/0.png"],
            2,
            "--out takes a folder, or a file that ends",
        ),
        (["{padim}", "{parts}", "--out", "scores.json"], 2, "scores.json is the name of a file. --out takes a folder"),
        (["{padim}", "{parts}", "--out", "Scores.XLSX"], 2, "--out takes a folder, or a file that ends in .csv"),
        (["{padim}", "--data", "no.yaml"], 1, "no.yaml"),
        (["{padim}", "--config", "no.yaml"], 1, "there is no config file no.yaml"),
        (["{padim}", "--data", "toy", "--data.category", "wood"], 1, "there is no category 'wood' here"),
        (["{padim}", "{parts}", "--format", "xml"], 2, "--format is one of"),
        (["{padim}", "{parts}", "--threshold", "high"], 2, "--threshold takes a number"),
        (["{padim}", "{parts}", "--device", "cuda:99"], 1, "cuda:99"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, workspace, arguments, code, sentence):
    output = iadbe("predict", *(word.format(**vars(workspace)) for word in arguments))
    assert output.code == code
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_a_name_that_is_no_text_is_escaped_in_the_file_of_scores(iadbe, workspace, elsewhere):
    try:
        draw(elsewhere / "some" / "bad\udcff.png", 5, spot=True)
    except (OSError, UnicodeError):
        pytest.skip("this file system has only names that are text")
    draw(elsewhere / "some" / "c.png", 5)
    assert iadbe("predict", workspace.padim, "some", "--out", "scores.csv").code == 0
    rows = list(csv.DictReader((elsewhere / "scores.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["path"] for row in rows] == [r"some/bad\udcff.png", "some/c.png"]


def test_scores_are_written_to_a_file_in_utf8_whatever_the_console_knows(workspace, elsewhere):
    draw(elsewhere / "裂纹_1.png", 5, spot=True)
    command = [sys.executable, "-m", "iadbe", "predict", str(workspace.padim), "裂纹_1.png"]
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run([*command, "--out", "scores.csv"], env=environment, check=True, capture_output=True)
    assert b"1 scores are in scores.csv" in done.stdout
    (row,) = csv.DictReader((elsewhere / "scores.csv").read_text(encoding="utf-8").splitlines())
    assert row["path"] == "裂纹_1.png"
    done = subprocess.run([*command, "--format", "csv"], env=environment, check=True, capture_output=True)
    assert r"\u88c2\u7eb9_1.png" in done.stdout.decode("cp1252")
    assert "note: this console (cp1252) cannot show some characters" in done.stderr.decode("cp1252")


@pytest.mark.parametrize("form", ["option", "class", "file", "config"])
def test_data_stands_for_its_test_images(iadbe, workspace, elsewhere, form):
    (elsewhere / "data.yaml").write_text(f"class_path: anomalib.data.MVTec\ninit_args: {{root: '{workspace.mvtec}'}}\n")
    (elsewhere / "config.yaml").write_text(
        f"model: anomalib.models.Padim\nckpt_path: {workspace.padim}\ndata:\n  class_path: anomalib.data.MVTecAD\n"
        f"  init_args: {{root: '{workspace.mvtec}', category: nut}}\n"
    )
    root = ["--data.root", workspace.mvtec]
    arguments = {
        "option": [workspace.padim, "--data", "mvtec_ad", *root],
        "class": ["--model", "Padim", "--data", "anomalib.data.MVTec", *root, "--ckpt_path", workspace.padim],
        "file": [workspace.padim, "--data", "data.yaml"],
        "config": ["--config", "config.yaml", "--return_predictions"],
    }[form]
    output = iadbe("predict", *arguments, "--format", "jsonl")
    assert output.code == 0, output.err
    paths = {Path(row["path"]).relative_to(workspace.mvtec).as_posix() for row in lines(output.out)}
    assert paths == {p.relative_to(workspace.mvtec).as_posix() for p in workspace.mvtec.glob("nut/test/*/*.png")}


def test_a_video_is_scored_frame_by_frame(iadbe, workspace, elsewhere):
    draw_video(elsewhere / "line.mp4", "mpeg4", [20, 120, 220])
    output = iadbe("predict", workspace.padim, "line.mp4", "--format", "jsonl", "--out", "heat")
    assert output.code == 0, output.err
    assert [row["path"] for row in lines(output.out)] == [f"line.mp4#000{n}" for n in range(3)]
    assert {p.name for p in (elsewhere / "heat").glob("*_heat.png")} == {f"line_000{n}_heat.png" for n in range(3)}


def test_another_engine_gives_the_same_scores_but_for_rounding(iadbe, workspace, monkeypatch):
    pytest.importorskip("openvino")
    compiled, used = engines.compiled, []
    monkeypatch.setattr(engines, "compiled", lambda *which: used.append(which[-1]) or compiled(*which))
    arguments = ["predict", workspace.padim, workspace.parts / "scratch", "--format", "jsonl", "--device", "cpu"]
    plain, other = (lines(iadbe(*arguments, "--engine", name).out) for name in ("torch", "openvino"))
    assert [row["score"] for row in other] == pytest.approx([row["score"] for row in plain], rel=1e-2)
    assert used == ["openvino"]  # it was another that computed; with two threads both may round alike
    output = iadbe(*arguments, "--engine", "openvin")
    assert (output.code, "Did you mean openvino" in output.err) == (1, True)
