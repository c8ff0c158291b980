"""A model as something that scores images."""

import numpy as np
import pytest

from exported_models import THRESHOLD, golden, random_image
from iadbe.errors import BadConfig
from iadbe.files.input_images import inputs_of
from iadbe.monitoring import reference
from iadbe.monitoring.history import FILE, History
from iadbe.running import model_folder
from iadbe.watching.scoring_model import load_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("model")
    fitted = golden()
    model_folder.save(found, fitted.detector, "golden", {}, fitted.calibration, {"dataset": "toy"})
    return found


def test_a_folder_scores(folder):
    model = load_model(folder, device="cpu")
    assert model.name == "golden"
    assert model.calibration.threshold == THRESHOLD
    (result,) = model.score(inputs_of([random_image(40, 30)]))
    assert result.threshold == THRESHOLD
    (result,) = load_model(folder, device="cpu", threshold=0.9).score(inputs_of([random_image(40, 30)]))
    assert result.threshold == 0.9


def test_images_are_counted_for_drift(folder):
    rng = np.random.default_rng(0)
    calibration = [{"score": float(v)} for v in rng.normal(size=30)]
    known = reference.reference_of(calibration)
    reference.write(folder, known)
    model = load_model(folder, device="cpu", source="watch")
    list(model.score(inputs_of([random_image(40, 30), random_image(30, 30)])))
    model.monitor.flush()
    (hour,) = History(folder / FILE).hours(known.key, "watch")
    assert hour.images == 2
    assert load_model(folder, device="cpu").monitor is None


def test_what_is_not_there(tmp_path):
    with pytest.raises(BadConfig):
        load_model(tmp_path / "nowhere.onnx")
    with pytest.raises(BadConfig):
        load_model(tmp_path / "nowhere")
