import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_trees import NORMAL_AND_ABNORMAL, ONLY_NORMAL
from part_images import draw_parts

QUICK = ("--size", "64", "--features", "off", "--device", "cpu", "--detector.weights", "none")


def run_of(out):
    """Return the folder that training says it has made."""
    return next(line.strip() for line in out.splitlines() if line.startswith("  runs/"))


def test_from_a_folder_of_good_images_to_a_verdict(elsewhere):
    """The whole way of someone at a production line, each command in a process of its own."""
    draw_parts(elsewhere / "parts", good=10, bad=0)
    draw_parts(elsewhere / "new", good=0, bad=2)
    how = {"capture_output": True, "text": True, "check": True}
    command = [sys.executable, "-m", "iadbe"]
    small = ["--size", "64", "--features", "off"]
    arguments = [*command, "train", "--detector", "padim", "--data", "parts", *small]
    trained = subprocess.run(arguments, **how)
    assert "no defects, so synthetic ones are" in trained.stderr
    assert "threshold" in trained.stdout
    folder = run_of(trained.stdout)
    assert f"Next: iadbe predict {folder} IMAGES --out heat" in trained.stdout
    arguments = [*command, "predict", folder, "new", "--format", "jsonl", "--out", "heat"]
    rows = [json.loads(line) for line in subprocess.run(arguments, **how).stdout.splitlines()]
    assert [row["defective"] for row in rows] == [True, True]
    assert (elsewhere / "heat/0_overlay.png").is_file()


def test_what_is_done_is_not_done_again_unless_its_model_is_lacking(iadbe, workspace):
    arguments = ["train", "--detector", "padim", "--data", workspace.parts, *QUICK]
    output = iadbe(*arguments)
    assert output.code == 0
    result = Path(run_of(output.out)) / "result.json"
    assert (result.parent / "model/weights.safetensors").is_file()
    before = result.stat().st_mtime_ns
    output = iadbe(*arguments)
    assert "1 of 1 done before" in output.err
    assert result.stat().st_mtime_ns == before
    assert iadbe(*arguments, "--force").code == 0
    assert result.stat().st_mtime_ns > before
    shutil.rmtree(result.parent / "model")
    assert iadbe(*arguments).code == 0
    assert (result.parent / "model/weights.safetensors").is_file()


def test_what_failed_is_tried_again(iadbe, workspace, elsewhere):
    draw_parts(elsewhere / "parts", good=6, bad=2)
    whole = (elsewhere / "parts/good/3.png").read_bytes()
    (elsewhere / "parts/good/3.png").write_bytes(whole[:200])
    arguments = ["train", "--detector", "padim", "--data", "parts", *QUICK]
    output = iadbe(*arguments)
    assert output.code == 1
    assert "failed: " in output.out
    assert "3.png cannot be read" in output.out
    output = iadbe(*arguments)
    assert output.code == 1
    assert "done before" not in output.err
    (elsewhere / "parts/good/3.png").write_bytes(whole)
    assert iadbe(*arguments).code == 0


@pytest.mark.parametrize(("text", "name"), [(ONLY_NORMAL, "hazelnut"), (NORMAL_AND_ABNORMAL, "chest_xray")])
def test_the_earlier_tools_files_work_unchanged(iadbe, elsewhere, text, name):
    root = elsewhere / "datasets/Custom_Dataset" / name
    draw_parts(root / "train", good=8, bad=0)
    draw_parts(root / "test", good=4, bad=2)
    (root / "test/scratch").rename(root / "test/crack")
    (elsewhere / "custom_dataset.yaml").write_text(text)
    output = iadbe("train", "--data", "custom_dataset.yaml", "--model", "anomalib.models.Padim", *QUICK)
    assert output.code == 0
    assert "custom_dataset" in run_of(output.out)
    assert ("image_size" in output.err) == ("image_size" in text)


def test_the_earlier_tools_loop_over_categories_works(iadbe, workspace, elsewhere):
    (elsewhere / "padim.yaml").write_text(
        "model:\n  class_path: anomalib.models.Padim\n"
        "  init_args: {layers: [layer1, layer2], backbone: tf_efficientnet_lite0, pre_trained: false, n_features: 8}\n"
        "metrics: {image: [AUROC, PRO]}\ntrainer: {max_epochs: 1}\ndefault_root_dir: results\n"
    )
    arguments = ["--data", "anomalib.data.MVTec", "--data.category", "nut", "--data.root", workspace.mvtec]
    output = iadbe("train", *arguments, "--config", "padim.yaml", *QUICK[:-2])
    assert output.code == 0
    (result,) = (elsewhere / "results").glob("*/result.json")
    params = json.loads(result.read_text())["spec"]["detector_params"]
    assert (params["dims"], params["layers"], params["weights"]) == (8, [1, 2], "none")


def test_a_detector_of_ones_own(iadbe, workspace, elsewhere):
    (elsewhere / "own_train.py").write_text(
        '"""Brightness."""\nfrom iadbe.detector import Detector\nfrom iadbe.types import Prediction\n\n\n'
        "class Bright(Detector):\n    def __init__(self, power: float = 1.0) -> None:\n        super().__init__()\n"
        "        self.power = power\n\n    def fit(self, train, rng):\n        pass\n\n"
        "    def predict(self, batch):\n        map_ = batch.image[:, 0] ** self.power\n"
        "        return Prediction(map_.amax((1, 2)), map_)\n"
    )
    arguments = ["--detector", "own_train:Bright", "--detector.power", "2", "--data", workspace.parts]
    output = iadbe("train", *arguments, *QUICK[:-2])
    assert output.code == 0, output.out + output.err
    assert "own_train:Bright on parts" in output.out


def test_an_interrupt_leaves_nothing_half_done(elsewhere):
    """SIGTERM to a real process, while its first run is under way."""
    draw_parts(elsewhere / "parts")
    arguments = ["train", "--detector", "autoencoder", "--detector.epochs", "100000", "--data", "parts", "--size", "64"]
    command = [sys.executable, "-m", "iadbe", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not [f for f in elsewhere.glob("runs/.part/*") if not f.name.startswith("probe")]:  # a run's own folder
        assert process.poll() is None, process.communicate()
    os.kill(process.pid, signal.SIGTERM)
    _, output = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.endswith("iadbe: interrupted. Finished runs are kept; the same command goes on where it stopped.\n")
    assert not list(elsewhere.glob("runs/.part/*"))
    assert not list(elsewhere.glob("runs/*/result.json"))


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--detector", "padm", "--data", "toy"], 1, "Did you mean padim"),
        (["--data", "toy"], 2, "which detector?"),
        (["--detector", "padim"], 2, "which data?"),
        (["--detector", "padim", "--data", "toi"], 1, "Did you mean toy"),
        (["--detector", "padim", "--data", "./none"], 1, "there is no folder or file"),
        (["--detector", "padim", "--data", "mvtec_ad", "--data.root", "none"], 1, "there is no folder"),
        (["--detector", "padim", "--data", "toy", "--data.category", "metl"], 1, "Did you mean metal"),
        (["--detector", "padim", "--data", "toy", "--time-limit", "soon"], 2, "10m"),
        (["--detector", "padim", "--data", "toy", "--metrics", "image_aurok"], 1, "Did you mean image_auroc"),
        (["--detector", "padim", "--data", "toy", "--image_size", "512"], 2, "Did you mean --size"),
        (["--detector", "padim", "--data", "toy", "--store", "file"], 1, "is a file"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, elsewhere, arguments, code, sentence):
    (elsewhere / "file").touch()
    output = iadbe("train", *arguments)
    assert (output.code, output.out) == (code, "")
    assert sentence in output.err
    assert "Traceback" not in output.err


def test_what_cannot_be_trained_says_why(iadbe, elsewhere):
    draw_parts(elsewhere / "one", good=1, bad=0)
    output = iadbe("train", "--detector", "padim", "--data", "one")
    assert output.code == 1
    assert "nothing can be trained" in output.err
    assert "there is no test image" in output.err
