"""`iadbe.watch` from Python."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import iadbe
from exported_models import golden, random_image
from iadbe.errors import BadConfig
from iadbe.files import image_io
from iadbe.monitoring import reference
from iadbe.monitoring.history import FILE
from iadbe.running import model_folder
from iadbe.watching.hot_folder import HotFolder
from iadbe.watching.mqtt import Mqtt
from iadbe.watching.watch import sinks_of, source_of
from iadbe.watching.webhook import Webhook


@pytest.fixture
def model(tmp_path):
    fitted = golden()
    model_folder.save(tmp_path / "model", fitted.detector, "golden", {}, fitted.calibration, {"dataset": "toy"})
    return tmp_path / "model"


@pytest.fixture
def incoming(tmp_path):
    folder = tmp_path / "incoming"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(random_image(40, 30, number)).save(folder / f"{number}.png")
    return folder


def test_a_folder_is_judged(model, incoming, tmp_path):
    heard = []
    how = {"once": True, "settle": 0, "device": "cpu", "draw": True, "move": True, "listener": heard.append}
    status = iadbe.watch(incoming, model, tmp_path / "out", **how)
    assert status.judged == sum(status.counts.values()) == 2
    lines = [json.loads(line) for line in (tmp_path / "out/verdicts.jsonl").read_text().splitlines()]
    assert lines == heard
    for line in lines:
        for name in (f"{line['drawn']}_overlay.png", line["moved_to"]):
            assert image_io.read_rgb(Path(name)).shape == (40, 30, 3)


def test_judged_images_count_for_drift(model, incoming, tmp_path):
    rng = np.random.default_rng(0)
    reference.write(model, reference.reference_of([{"score": float(v)} for v in rng.normal(size=30)]))
    iadbe.watch(incoming, model, tmp_path / "out", once=True, settle=0, device="cpu")
    assert iadbe.drift(model, source="watch", running=True).images == 2


def test_a_history_that_is_damaged_is_a_problem_and_no_obstacle(model, incoming, tmp_path):
    rng = np.random.default_rng(0)
    reference.write(model, reference.reference_of([{"score": float(v)} for v in rng.normal(size=30)]))
    (model / FILE).mkdir()
    status = iadbe.watch(incoming, model, tmp_path / "out", once=True, settle=0, device="cpu")
    assert status.judged == 2
    assert "drift" in status.problems


def test_a_model_without_a_threshold_cannot_sort(incoming, tmp_path):
    fitted = golden(calibrated=False)
    model_folder.save(tmp_path / "model", fitted.detector, "golden", {}, fitted.calibration, {"dataset": "toy"})
    with pytest.raises(BadConfig, match="has no threshold"):
        iadbe.watch(incoming, tmp_path / "model", tmp_path / "out", move=True, device="cpu")


def test_what_a_path_means(incoming, tmp_path):
    assert isinstance(source_of(str(incoming), tmp_path / "out"), HotFolder)
    with pytest.raises(BadConfig, match="no video"):
        source_of(str(incoming / "0.png"), tmp_path / "out")
    with pytest.raises(BadConfig, match="another folder than the watched one"):
        source_of(str(incoming), incoming)


def test_sinks():
    pytest.importorskip("paho.mqtt")
    assert sinks_of() == []
    assert isinstance(sinks_of("https://line.example")[0], Webhook)
    assert isinstance(sinks_of(mqtt="mqtt://broker/topic")[0], Mqtt)
