"""In an environment of its own (.ci/foreign), because anomalib pins what others need newer."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from drawn_images import images, parts
from foreign_tools import make, offline  # noqa: F401  (a fixture of every test)
from iadbe import progress
from iadbe.errors import BadConfig, Missing, UnknownName
from iadbe.parameters import complete
from iadbe.registry import card, load
from iadbe.running import model_folder
from laws.test_detectors import scored

HERE = importlib.util.find_spec("anomalib") is not None
foreign = pytest.mark.skipif(not HERE, reason="anomalib is not in this environment: .ci/foreign makes one")
pytestmark = pytest.mark.filterwarnings("default")
QUICK = {"weights": "none", "epochs": 1, "steps": 2, "batch": 4}
MODELS = {
    "Padim": {},
    "Patchcore": {"options": "backbone=resnet18,coreset_sampling_ratio=0.02"},
    "Stfpm": {},
    "Fastflow": {"options": "flow_steps=2"},
    "ReverseDistillation": {"options": "backbone=resnet18"},
    "EfficientAd": {"images": "natural"},
}


def made(**params):
    return make("anomalib", {**QUICK, **params})


def natural_images(folder):
    """Draw the images that stand for ImageNet, in one folder by class."""
    (folder / "drawn" / "part").mkdir(parents=True)
    for number, pixels in enumerate(parts(3)):
        Image.fromarray(pixels).save(folder / "drawn" / "part" / f"{number}.png")
    return folder / "drawn"


@pytest.mark.skipif(HERE, reason="anomalib is here")
def test_without_anomalib_a_sentence_says_what_to_install():
    with pytest.raises(Missing, match=r"pip install 'iadbe\[anomalib\]'"):
        load("detectors", "anomalib")


def test_the_card_marks_it_as_foreign():
    assert card("detectors", "anomalib").get("foreign") == "anomalib"


@foreign
@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_model_is_fitted_saved_and_loaded(model, tmp_path):
    params = {"model": model, **MODELS[model]}
    if "images" in params:
        params["images"] = str(natural_images(tmp_path))
    detector, train, test = made(**params), images(parts(5)), images(parts(3, defective=True))
    with progress.counting_steps() as steps:
        detector.fit(train, np.random.default_rng(0))
    assert steps.done >= 1
    score, maps = scored(detector, test, 3)
    assert score.shape == (3,)
    assert maps.shape == (3, 64, 64)
    assert torch.isfinite(maps).all()
    torch.testing.assert_close(scored(detector, test, 1)[0], score, rtol=1e-4, atol=1e-5)
    own = card("detectors", "anomalib")
    model_folder.save(tmp_path / "model", detector, "anomalib", complete(own, {**QUICK, **params}))
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".json", ".safetensors"}
    loaded = model_folder.load(tmp_path / "model").detector
    torch.testing.assert_close(scored(loaded, test, 3)[0], score)


@foreign
@pytest.mark.parametrize(
    ("params", "error", "sentence"),
    [
        ({"model": "Padm"}, UnknownName, "anomalib has no model 'Padm'. Did you mean Padim"),
        ({"model": "AiVad"}, BadConfig, "it takes videos"),
        ({"model": "VlmAd"}, BadConfig, "over the network"),
        ({"options": "backbon=resnet18"}, UnknownName, "Padim has no option 'backbon'"),
        ({"options": "layers=nowhere"}, BadConfig, "cannot be made or trained so"),
        ({"images": "x"}, BadConfig, "takes no folder of images"),
        ({"weights": "auto"}, Missing, "weights of resnet18.* are not on this machine"),
        ({"weights": "nowhere.ckpt"}, BadConfig, "there is no weight file"),
        ({"epochs": -1}, BadConfig, "at least 0"),
    ],
)
def test_what_cannot_be_made_is_one_sentence(params, error, sentence):
    with pytest.raises(error, match=sentence):
        made(**params)


@foreign
def test_what_a_model_would_download_is_one_sentence():
    with pytest.raises(Missing, match="images of ImageNet"):
        made(model="EfficientAd").fit(images(parts(3)), np.random.default_rng(0))
    with pytest.raises(Missing, match="cannot be downloaded"):
        made(model="Csflow")


@foreign
def test_a_density_of_too_few_images_is_one_sentence():
    with pytest.raises(BadConfig, match="needs more than 16 good images, and steps for them"):
        made(model="Dfkde").fit(images(parts(20)), np.random.default_rng(0))  # which two steps of four do not reach


@foreign
def test_a_model_that_fits_in_phases_says_when_it_is_unfinished():
    with pytest.raises(BadConfig, match="MHPatchcore cannot score after this training .* Leave out steps and epochs"):
        made(model="MHPatchcore").fit(images(parts(5)), np.random.default_rng(0))


@foreign
@pytest.mark.slow
def test_a_trained_model_from_a_file_is_taken_as_it_is(tmp_path):
    detector, test = made(), images(parts(2))
    detector.fit(images(parts(4)), np.random.default_rng(0))
    state = {k: v.contiguous() for k, v in detector.module.state_dict().items()}
    save_file(state, str(tmp_path / "padim.safetensors"))
    again, notes = made(weights=str(tmp_path / "padim.safetensors")), []
    with progress.collecting_notes(notes):
        again.fit(images(parts(6, defective=True)), np.random.default_rng(1))
    assert notes == ["the model is that of the weight file: it was not trained on these images."]
    torch.testing.assert_close(scored(again, test)[0], scored(detector, test)[0])
    assert again.weights().endswith("from a file")


@foreign
@pytest.mark.slow
def test_a_budget_ends_training():
    detector = made(model="Stfpm", epochs=50, steps=0)
    with progress.counting_steps() as steps, progress.budget(0.01):
        detector.fit(images(parts(4)), np.random.default_rng(0))
    assert steps.done == 1
    assert steps.planned == 50
