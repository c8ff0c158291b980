"""From a calibrated model in use to an alarm: `iadbe predict` counts, `iadbe drift` compares."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from iadbe import api
from iadbe.monitoring.history import FILE
from iadbe.types import Options
from part_images import draw, draw_parts


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A small calibrated model, and parts in the light of the calibration and in less."""
    root = tmp_path_factory.mktemp("line")
    draw_parts(root / "old", good=12, bad=2)
    for folder, first, count in (("calibration", 200, 30), ("same", 300, 40), ("dim", 400, 120)):
        for i in range(count):
            draw(root / f"{folder}/{i}.png", first + i)
    for path in (root / "dim").glob("*.png"):
        dark = np.asarray(Image.open(path)) * 0.6
        Image.fromarray(dark.astype(np.uint8)).save(path)
    how = {"protocol": "uniform@64", "store": root / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("golden", str(root / "old"), **how)
    api.calibrate(trained, root / "calibration", overkill=0.05)
    return SimpleNamespace(root=root, model=trained.folder / "model")


def test_the_light_goes_down(iadbe, line):
    first = iadbe("drift", line.model)
    assert (first.code, first.out.strip()) == (0, "Nothing can be said yet: no hour with images is over.")
    assert iadbe("predict", line.model, line.root / "same").code == 0
    same = iadbe("drift", line.model, "--running")
    assert same.code == 0
    assert "still stands: 40 images in" in same.out
    assert iadbe("predict", line.model, line.root / "dim").code == 0
    dim = iadbe("drift", line.model, "--running")
    assert dim.code == 1
    assert "no longer holds" in dim.out
    assert "the light" in dim.out
    card = json.loads(iadbe("drift", line.model, "--running", "--json", "--source", "predict").out)
    assert card["images"] == 160
    assert card["channels"][0]["now"] < card["channels"][0]["before"]
    assert json.loads(iadbe("drift", line.model, "--running", "--json", "--source", "watch").out)["images"] == 0


def test_test_sets_and_what_is_not_to_count(iadbe, line):
    before = json.loads(iadbe("drift", line.model, "--running", "--json").out)["images"]
    assert iadbe("predict", line.model, line.root / "same", "--no-history").code == 0
    assert iadbe("predict", line.model, "--data", line.root / "old").code == 0
    assert json.loads(iadbe("drift", line.model, "--running", "--json").out)["images"] == before


def test_a_damaged_history_is_told_and_predictions_go_on(iadbe, line):
    assert iadbe("predict", line.model, line.root / "same/0.png").code == 0
    kept = (line.model / FILE).read_bytes()
    (line.model / FILE).write_bytes(b"damaged" * 200)
    output = iadbe("predict", line.model, line.root / "same/0.png")
    assert output.code == 0
    assert "do not count for `iadbe drift`" in output.err
    assert "Remove it" in iadbe("drift", line.model).err
    (line.model / FILE).write_bytes(kept)


def test_a_model_that_was_never_calibrated(iadbe, line, tmp_path):
    model = line.root / "runs"
    (trained,) = api.train(
        "golden", str(line.root / "old"), protocol="uniform@32", store=model, options=Options("cpu", images=0)
    )
    output = iadbe("drift", trained.folder)
    assert output.code == 1
    assert "Run `iadbe calibrate` with at least 20 good images" in output.err
    assert iadbe("drift").code == 2
