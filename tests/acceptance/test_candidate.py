"""A candidate beside its model: learning, promotion, going back."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import iadbe
from iadbe import api
from iadbe.acceptance import candidate
from iadbe.errors import BadConfig, BadData
from iadbe.files.input_images import inputs_of
from iadbe.running import model_folder
from iadbe.types import Options


@pytest.fixture
def model(factory, tmp_path):
    """Return a model's folder of one's own."""
    return shutil.copytree(factory.model / "model", tmp_path / "model")


def _learn(model, images, learnt=()):
    notes = []
    return candidate.learn(model, inputs_of(images), inputs_of(learnt) if learnt else (), "cpu", notes), notes


def test_it_learns_and_the_model_stays(factory, model):
    before = {path.name: path.read_bytes() for path in model.iterdir()}
    fitted, notes = _learn(model, factory.root / "calibration")
    assert {path.name: path.read_bytes() for path in model.iterdir()} == before
    assert notes == []
    present, own = model_folder.load(model), model_folder.load(candidate.candidate_of(model))
    assert len(own.learnt) == len(present.learnt) + 30
    assert own.learnt == fitted.learnt
    assert "30 images more" in own.calibration.how
    image = factory.root / "good/0.png"
    new, old = (next(iter(iadbe.predict(one, image))).score for one in (own, present))
    assert new != old


def test_merging_is_learning_all_at_once(factory, model):
    fitted, _ = _learn(model, factory.root / "calibration")
    whole = model_folder.load(model)
    paths = [*learnt_images(factory), *sorted((factory.root / "calibration").iterdir())]
    both = candidate._training_images(whole, inputs_of(paths), torch.device("cpu"), [], is_new=None)
    assert len(both) == len(fitted.learnt)
    whole.detector.fit(both, np.random.default_rng(0))
    image = factory.root / "bad/spot/0.png"
    scores = [next(iter(iadbe.predict(one, image))).score for one in (fitted, whole)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_what_it_knows_is_left_out(factory, model):
    with pytest.raises(BadConfig, match="no good image that the model has not learnt"):
        _learn(model, sorted(learnt_images(factory)))
    _, notes = _learn(model, [factory.old, factory.root / "calibration"])
    assert any("has learnt them already" in note for note in notes)


def learnt_images(factory):
    """Return the paths of the images that the model has learnt."""
    fitted = api.load(factory.model)
    found = iadbe.predict(fitted, factory.old)
    return [str(result.path) for result in found if fitted.was_trained_on(result.key)]


def test_others_are_fitted_again(factory, tmp_path):
    how = {"protocol": "uniform@64", "store": tmp_path / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("dfkde", str(factory.old.parent), backbone="test_resnet", weights="none", **how)
    model, new = trained.folder / "model", factory.root / "calibration"
    with pytest.raises(BadConfig, match="with --learnt"):
        _learn(model, new)
    fitted, notes = _learn(model, new, factory.old)
    assert len(fitted.learnt) == len(model_folder.load(model).learnt) + 30
    assert all("has not learnt them" in note for note in notes)
    _, notes = _learn(model, new, [factory.old / "0.png", factory.old / "1.png", factory.old / "2.png"])
    assert any("are not among those of --learnt" in note for note in notes)


@pytest.fixture
def pair(tmp_path):
    """Return a model and its candidate, of which only the names of their files matter."""
    model = tmp_path / "model"
    for folder, text in ((model, "present"), (candidate.candidate_of(model), "candidate")):
        folder.mkdir()
        for name in (model_folder.CARD, model_folder.TENSORS):
            (folder / name).write_text(text)
    return SimpleNamespace(model=model, is_now=lambda: (model / model_folder.CARD).read_text())


def _evidence(model, passes=True):
    candidate.keep_evidence(model, {"passes": passes, "sentence": "Keep the present model: it is better."})


def test_promotion_and_back(pair):
    _evidence(pair.model)
    kept = candidate.promote(pair.model)
    assert (kept.name, pair.is_now()) == ("model.1", "candidate")
    assert candidate.roll_back(pair.model) == kept
    assert pair.is_now() == "present"
    candidate.roll_back(pair.model)
    assert pair.is_now() == "candidate"
    with pytest.raises(BadConfig, match="has no candidate"):
        candidate.promote(pair.model)


def test_a_worse_one_is_never_promoted_without_force(pair):
    with pytest.raises(BadConfig, match="was not compared"):
        candidate.promote(pair.model)
    _evidence(pair.model, passes=False)
    with pytest.raises(BadConfig, match="Keep the present model"):
        candidate.promote(pair.model)
    _evidence(pair.model)
    (pair.model / model_folder.CARD).write_text("calibrated anew")
    with pytest.raises(BadConfig, match="has changed since"):
        candidate.promote(pair.model)
    assert pair.is_now() == "calibrated anew"
    candidate.promote(pair.model, force=True)
    assert pair.is_now() == "candidate"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"passes": 1}', "\xff"])
def test_damaged_evidence_is_no_evidence(pair, text):
    (candidate.candidate_of(pair.model) / candidate.EVIDENCE).write_text(text)
    with pytest.raises(BadData, match=r"gate\.json is damaged"):
        candidate.promote(pair.model)


def test_evidence_that_only_looks_true_is_none(pair):
    _evidence(pair.model)
    file = candidate.candidate_of(pair.model) / candidate.EVIDENCE
    file.write_text(json.dumps({**json.loads(file.read_text()), "passes": "yes"}))
    with pytest.raises(BadConfig):
        candidate.promote(pair.model)


@pytest.mark.parametrize("renames", [1, 2])
@pytest.mark.parametrize("action", ["promote", "roll_back"])
def test_a_crash_between_two_renames_is_mended(pair, monkeypatch, renames, action):
    _evidence(pair.model)
    if action == "roll_back":
        candidate.promote(pair.model)
    done, rename = [], candidate.system.rename

    def crashing(source, target):
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(source)
        rename(source, target)

    with monkeypatch.context() as patched:
        patched.setattr(candidate.system, "rename", crashing)
        if action == "promote" and renames == 2:
            candidate.promote(pair.model)
        else:
            with pytest.raises(KeyboardInterrupt):
                getattr(candidate, action)(pair.model)
    candidate.recover(pair.model)
    assert pair.is_now() in ("present", "candidate")
    names = sorted(path.name for path in pair.model.parent.iterdir())
    texts = [(pair.model.parent / name / model_folder.CARD).read_text() for name in names]
    assert sorted(texts) == ["candidate", "present"]  # neither is lost


def test_nothing_to_go_back_to(pair):
    with pytest.raises(BadConfig, match="no former model"):
        candidate.roll_back(pair.model)
