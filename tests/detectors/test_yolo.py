"""In an environment of its own (.ci/foreign), because ultralytics is not among what tests install."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from foreign_tools import make, offline  # noqa: F401  (a fixture of every test)
from iadbe import progress, registry
from iadbe.data.images import Images
from iadbe.errors import BadConfig, Missing, UnknownName
from iadbe.parameters import complete
from iadbe.registry import card, load
from iadbe.running import model_folder, plan
from iadbe.running.run import run
from iadbe.types import Options, TrainingImage, TrainingLabel
from laws.test_detectors import images, scored

HERE = importlib.util.find_spec("ultralytics") is not None
foreign = pytest.mark.skipif(not HERE, reason="ultralytics is not in this environment: .ci/foreign makes one")
pytestmark = pytest.mark.filterwarnings("default")


def made(**params):
    return make("yolo", {"epochs": 1, "batch": 4, **params})


@pytest.mark.skipif(HERE, reason="ultralytics is here")
def test_without_ultralytics_a_sentence_says_what_to_install():
    with pytest.raises(Missing, match=r"pip install 'iadbe\[yolo\]'"):
        load("detectors", "yolo")


def test_the_card_marks_it_as_foreign_and_it_needs_labels():
    own = card("detectors", "yolo")
    assert own.get("foreign") == "ultralytics"
    assert "labels" in own.get("needs")
    planned = plan.expand({"detectors": ["yolo"], "data": ["toy"], "settings": ["vanilla", "supervised"]})
    assert {spec.setting for spec in planned.runs} == {"supervised"}
    assert any("yolo" in str(skip) and "labels" in str(skip) for skip in planned.skipped)


@foreign
@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "rows"),
    [
        ("yolo11n.yaml", {"yolo_map50", "yolo_map50_95"}),
        ("yolov8n-seg.yaml", {"yolo_map50", "yolo_map50_95", "yolo_mask_map50", "yolo_mask_map50_95"}),
        ("yolov8n-cls.yaml", {"yolo_top1"}),
    ],
)
def test_a_network_is_trained_saved_and_loaded(model, rows, tmp_path):
    detector, test = made(model=model), images("yolo", split="test", count=4)
    detector.view = test.view
    with progress.counting_steps() as steps:
        detector.fit(images("yolo", count=6), np.random.default_rng(0))
    assert steps.done == steps.planned > 0
    score, maps = scored(detector, test, 4)
    assert ((score >= 0) & (score <= 1)).all()
    if "cls" in model:
        assert maps is None
        assert "localise" not in detector.can
    else:
        assert maps.shape == (4, 64, 64)
        assert (maps.amax((1, 2)) <= score + 1e-6).all()
    torch.testing.assert_close(scored(detector, test, 1)[0], score, rtol=1e-4, atol=1e-6)
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    own = detector.own_measures(test)
    assert set(own) == rows
    assert all(0 <= value <= 1 for value in own.values())
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())
    params = complete(card("detectors", "yolo"), {"model": model})
    model_folder.save(tmp_path / "model", detector, "yolo", {**params, "model": "file:mine.yaml#0"})  # as of a file
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    loaded = model_folder.load(tmp_path / "model").detector
    assert torch.equal(scored(loaded, test, 4)[0], score)


@foreign
@pytest.mark.slow
def test_a_run_keeps_the_own_measures_as_rows():
    grid = {
        "detectors": [{"name": "yolo", "epochs": 1, "batch": 8}],
        "data": [{"name": "toy", "count": 12, "categories": ["metal"]}],
        "settings": ["supervised"],
        "protocol": "uniform@64",
    }
    (spec,) = plan.expand(grid).runs
    result = run(spec, Options(features="off", threads=1, device="cpu"))
    assert result.error == ""
    assert {"image_auroc", "pixel_auroc", "yolo_map50", "yolo_map50_95"} <= {row.metric for row in result.rows}


@foreign
@pytest.mark.slow
def test_it_learns_the_defects_that_were_labelled():
    train = images("yolo", count=12)
    detector = made(model="yolov8n.yaml", epochs=40, batch=8, options="mosaic=0,optimizer=AdamW,lr0=0.002")
    detector.view = train.view
    losses = []
    with progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None):
        detector.fit(train, np.random.default_rng(0))
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])


@foreign
def test_anomalies_without_a_mask_are_left_out_with_a_note():
    train = images("yolo", count=4)
    items = [TrainingImage(e.sample, TrainingLabel.ANOMALOUS if e.sample.is_anomaly else e.label) for e in train.items]
    with pytest.raises(BadConfig, match="with a mask"):
        made().fit(Images(train.dataset, items, train.view), np.random.default_rng(0))


def with_yaml(folder, **changes):
    from ultralytics.nn.tasks import yaml_model_load

    found = {**yaml_model_load("yolo11n.yaml"), **changes}
    file = folder / "mine11n.yaml"
    file.write_text(json.dumps({k: v for k, v in found.items() if k != "yaml_file"}), encoding="utf-8")
    return str(file)


@foreign
def test_a_yaml_file_is_a_network_but_never_code(tmp_path):
    assert made(model=with_yaml(tmp_path, activation="nn.ReLU()")).task == "detect"
    for evil in ("open('ran', 'w')", "nn.Module().__init__()", "__import__('os')"):
        with pytest.raises(BadConfig, match="the activation of a network"):
            made(model=with_yaml(tmp_path, activation=evil))
    for name in ("subprocess", "torch", "os.system", "nn.init"):
        with pytest.raises(BadConfig, match="is no layer"):
            made(model=with_yaml(tmp_path, backbone=[[-1, 1, name, []]]))


class Evil:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@foreign
def test_a_weight_file_of_ultralytics_needs_no_trust_unless_it_holds_more(tmp_path):
    source = made(model="yolov8n.yaml")
    torch.save({"model": source.network, "epoch": 3}, tmp_path / "mine.pt")
    notes = []
    with progress.collecting_notes(notes):
        taken = made(weights=str(tmp_path / "mine.pt"))
    assert notes == []
    assert taken.weights().startswith("mine.pt: ")
    assert torch.equal(taken.network.model[0].conv.weight, source.network.model[0].conv.weight)
    mark = tmp_path / "ran"
    torch.save({"model": source.network, "code": Evil(mark)}, tmp_path / "evil.pt")
    with pytest.raises(BadConfig, match="add --trust"):
        made(weights=str(tmp_path / "evil.pt"))
    assert not mark.exists()
    registry.trust(str(tmp_path / "evil.pt"))
    with progress.collecting_notes(notes):
        made(weights=str(tmp_path / "evil.pt"))
    assert mark.exists()
    assert "--trust" in notes[0]


@foreign
@pytest.mark.parametrize(
    ("params", "error", "sentence"),
    [
        ({"model": "yolo99x.yaml"}, BadConfig, "knows no network 'yolo99x.yaml'"),
        ({"model": "yolo11n-pose.yaml"}, BadConfig, "detection, segmentation and classification"),
        ({"weights": "nowhere.pt"}, BadConfig, "there is no weight file"),
        ({"options": "lr=1"}, UnknownName, "has no option 'lr'. Did you mean lr"),
        ({"options": "project=x"}, UnknownName, "has no option 'project'"),
        ({"epochs": 0}, BadConfig, "at least 1"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(params, error, sentence):
    with pytest.raises(error, match=sentence):
        made(**params)
