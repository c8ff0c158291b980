import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.detectors.golden import Golden
from iadbe.detectors.padim import PaDiM
from iadbe.errors import BadConfig, BadData, BadDetector
from iadbe.parameters import complete
from iadbe.registry import card
from iadbe.running import model_folder
from iadbe.types import ChannelProjection, IntensityRange, TrainingImage

PARAMS = {"weights": "none", "dims": 8}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    toy = Toy()
    samples = [s for s in toy.samples() if s.category == "metal" and s.split == "train"][:4]
    padim = PaDiM(**PARAMS)
    padim.view = View(64)
    padim.fit(Images(toy, [TrainingImage(s) for s in samples], View(64)), np.random.default_rng(0))
    calibration = model_folder.Calibration("by hand", 1.5, None, 0.0, 2.0)
    params = complete(card("detectors", "padim"), PARAMS)
    folder = tmp_path_factory.mktemp("model")
    return model_folder.save(folder, padim.eval(), "padim", params, calibration, {"task": "metal"}), padim


def test_all_that_was_learnt_comes_back(model):
    folder, padim = model
    loaded = model_folder.load(folder)
    assert loaded.name == "padim"
    assert loaded.calibration.threshold == 1.5
    assert loaded.about == {"task": "metal"}
    assert loaded.detector.view == View(64)
    ours, theirs = padim.state_dict(), loaded.detector.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_a_runs_folder_stands_for_its_model(model, tmp_path):
    (tmp_path / "model").symlink_to(model[0])
    assert model_folder.load(tmp_path).name == "padim"


def test_nothing_is_unpickled(model):
    assert sorted(p.name for p in model[0].iterdir()) == ["detector.json", "weights.safetensors"]


@pytest.mark.parametrize("name", ["model.ckpt", "model.pt"])
def test_another_tools_file_is_one_sentence(name):
    with pytest.raises(BadConfig, match="made by another tool"):
        model_folder.load(name)


def test_an_exported_file_is_one_sentence():
    with pytest.raises(BadConfig, match="is an exported file, which `iadbe predict` takes"):
        model_folder.load("model.onnx")


def test_what_is_no_model_is_one_sentence(tmp_path):
    with pytest.raises(BadConfig, match="not a model folder"):
        model_folder.load(tmp_path)


def copied(model, folder):
    for name in ("detector.json", "weights.safetensors"):
        (folder / name).write_bytes((model[0] / name).read_bytes())
    return folder


def test_damage_is_one_sentence(model, tmp_path):
    folder = copied(model, tmp_path)
    (folder / "weights.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")
    with pytest.raises(BadData, match="cannot be read as a model"):
        model_folder.load(folder)
    (folder / "detector.json").write_text("{")
    with pytest.raises(BadData, match="cannot be read as a model"):
        model_folder.load(folder)


def test_another_format_is_one_sentence(model, tmp_path):
    folder = copied(model, tmp_path)
    content = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps({**content, "format": 99}))
    with pytest.raises(BadConfig, match="another version"):
        model_folder.load(folder)


def test_a_new_calibration_replaces_the_old_one_and_nothing_else(model, tmp_path):
    folder = copied(model, tmp_path)
    assert model_folder.save_calibration(folder, model_folder.Calibration("new", 2.5)) == folder
    found = model_folder.load(folder)
    assert (found.calibration.how, found.calibration.threshold, found.calibration.high) == ("new", 2.5, None)
    assert (found.about, found.detector.view) == ({"task": "metal"}, View(64))
    assert sorted(p.name for p in folder.iterdir()) == ["detector.json", "weights.safetensors"]
    with pytest.raises(BadConfig, match="not a model folder"):
        model_folder.save_calibration(tmp_path / "none", model_folder.Calibration())


def test_a_threshold_of_another_version_says_so_until_it_is_calibrated_again(model, tmp_path):
    folder = copied(model, tmp_path)
    content = json.loads((folder / "detector.json").read_text())
    (folder / "detector.json").write_text(json.dumps({**content, "version": 0}))
    assert "of version 0 of padim; this is version 1" in model_folder.load(folder).calibration.how
    model_folder.save_calibration(folder, model_folder.Calibration("new", 2.5))
    assert model_folder.load(folder).calibration.how == "new"


@pytest.mark.parametrize("version", [0, 7])
def test_a_model_of_another_version_says_so_with_or_without_a_threshold(model, tmp_path, version):
    folder = copied(model, tmp_path)
    assert model_folder.load(folder).note == ""
    content = json.loads((folder / "detector.json").read_text()) | {"version": version, "calibration": {"how": ""}}
    (folder / "detector.json").write_text(json.dumps(content))
    said = f"the model is of version {version} of padim; this is version 1, whose scores may differ."
    assert model_folder.load(folder).note == said


def test_a_view_of_another_fit_and_other_sides_comes_back(model, tmp_path):
    view, model[1].view = model[1].view, View(64, fit="pad", resize_width=96)
    try:
        found = model_folder.load(model_folder.save(tmp_path, model[1], "padim", PARAMS))
        assert found.detector.view == model[1].view
    finally:
        model[1].view = view


def test_it_knows_what_it_has_learnt(model, tmp_path):
    padim = model[1]
    keys = [f"{i:032x}"[::-1] for i in (1, 2)]
    found = model_folder.load(model_folder.save(tmp_path, padim, "padim", PARAMS, learnt=keys))
    assert [found.was_trained_on(key) for key in (*keys, f"{3:032x}"[::-1])] == [True, True, False]
    assert model_folder.load(model_folder.save(tmp_path, padim, "padim", PARAMS, learnt=[])).learnt == frozenset()
    assert model_folder.load(model[0]).learnt is None


def test_the_range_of_deep_images_comes_back(model, tmp_path):
    given = IntensityRange(0.0, 4095.0, "learnt from 12 normal images")
    found = model_folder.load(model_folder.save(tmp_path, model[1], "padim", PARAMS, intensity=given))
    assert found.intensity == given
    card = json.loads((tmp_path / "detector.json").read_text())
    for wrong in ({"low": 1, "high": 1, "source": ""}, {"low": 0, "high": "x", "source": ""}, {"high": 1}, [0, 1]):
        (tmp_path / "detector.json").write_text(json.dumps({**card, "intensity": wrong}))
        with pytest.raises(BadData, match=r"intensity in detector\.json must be the range of deep images"):
            model_folder.load(tmp_path)


def test_the_projection_of_channels_comes_back(model, tmp_path):
    rows = ChannelProjection(((0.5, 0.25), (0.0, 1.0), (1.0, 0.0)), (0.0, 0.5, -1.0), "principal components")
    given = IntensityRange(0.0, 1.0, "learnt", rows)
    assert model_folder.load(model_folder.save(tmp_path, model[1], "padim", PARAMS, intensity=given)).intensity == given
    card = json.loads((tmp_path / "detector.json").read_text())
    wrong = (
        {"weights": [[1.0], [1.0]]},
        {"weights": [[1.0], [1.0, 2.0], [1.0]]},
        {"offset": [0.0]},
        {"source": 3},
        {"x": 1},
    )
    for change in wrong:
        projection = {**card["intensity"]["projection"], **change}
        changed = {**card, "intensity": {**card["intensity"], "projection": projection}}
        (tmp_path / "detector.json").write_text(json.dumps(changed))
        with pytest.raises(BadData, match=r"intensity in detector\.json must be the range of deep images"):
            model_folder.load(tmp_path)


def test_the_region_of_all_images_comes_back(model, tmp_path):
    _, padim = model
    region = np.zeros((37, 53), bool)
    region[5:30, 7:40] = True
    params = complete(card("detectors", "padim"), PARAMS)
    folder = model_folder.save(tmp_path / "new", padim, "padim", params, region=region)
    assert np.array_equal(model_folder.load(folder).region, region)
    assert model_folder.load(model[0]).region is None
    content = json.loads((folder / "detector.json").read_text())
    content["region"]["size"] = [37, 52]
    (folder / "detector.json").write_text(json.dumps(content))
    with pytest.raises(BadData, match="a run-length code of 'region' that does not fill its size, 37x52"):
        model_folder.load(folder)


def test_folders_of_earlier_versions_are_read(model, tmp_path):
    folder = copied(model, tmp_path)
    content = json.loads((folder / "detector.json").read_text())
    del content["learnt"], content["intensity"]
    content["calibration"] = {"how": "best F1", "threshold": 1.5, "pixel_threshold": None, "low": 0.0, "high": 2.0}
    (folder / "detector.json").write_text(json.dumps(content))
    found = model_folder.load(folder)
    assert (found.calibration.threshold, found.calibration.scaled(9.0), found.learnt) == (1.5, None, None)
    (folder / "detector.json").write_text(json.dumps({**content, "calibration": {"overkill": {"what": 1}}}))
    with pytest.raises(BadData, match="cannot be read as a model"):
        model_folder.load(folder)


def test_a_tensor_of_another_type_is_noticed(model, tmp_path):
    folder = copied(model, tmp_path)
    tensors = load_file(folder / "weights.safetensors")
    name = next(n for n in tensors if not n.startswith("backbone"))
    save_file({**tensors, name: tensors[name].to(torch.float64)}, folder / "weights.safetensors")
    with pytest.raises(BadData, match=r"cannot be read as a model: the saved PaDiM has \w+ as torch.float64"):
        model_folder.load(folder)


def test_tensors_of_other_parameters_are_one_sentence(model, tmp_path):
    folder = copied(model, tmp_path)
    card = json.loads((folder / "detector.json").read_text())
    for changes in ({"weights": []}, {"params": {**card["params"], "backbone": "resnet18"}}):
        (folder / "detector.json").write_text(json.dumps({**card, **changes}))
        with pytest.raises(BadData, match="cannot be read as a model"):
            model_folder.load(folder)


def test_a_tensor_too_many_or_too_few_is_noticed(model):
    padim = PaDiM(**PARAMS)
    state = dict(model[1].state_dict())
    with pytest.raises(BadDetector, match="does not know"):
        padim.load_tensors({**state, "stranger": torch.zeros(1)})
    state.pop(next(k for k in state if not k.startswith("backbone")))
    with pytest.raises(BadDetector, match="lacks"):
        PaDiM(**PARAMS).load_tensors(state)


@pytest.mark.parametrize("view", [View(64), View(64, 32), View(32, fit="pad", resize_width=64), View(32, fit="crop")])
def test_any_view_comes_back(view, tmp_path):
    detector = Golden()
    detector.view = view
    folder = model_folder.save(tmp_path / "m", detector, "golden", complete(card("detectors", "golden"), {}))
    assert model_folder.load(folder).detector.view == view
    said = json.loads((folder / "detector.json").read_text(encoding="utf-8"))["view"]
    assert set(said) >= {"resize", "crop"}
    assert ("fit" in said) == (view.fit != "squash")  # cards of usual views are those of earlier versions
