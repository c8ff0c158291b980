"""A model on images that it knows nothing of."""

import shutil

import pytest

import iadbe
from iadbe import api
from iadbe.errors import BadConfig
from iadbe.types import Options


def test_all_of_it(factory):
    root = factory.root
    found = iadbe.accept(
        factory.model, root / "good", root / "bad", repeats=root / "again", part=r"part_\d", drawn=3, escape=0.2
    )
    assert (len(found.challenge.good), len(found.challenge.bad)) == (12, 6)
    assert [k.name for k in found.challenge.kinds] == ["spot"]
    assert found.challenge.escape.value == 0
    assert found.passed is True
    assert len(found.repeatability.parts) == 3
    assert found.repeatability.parts[2].zone == "reject"
    assert found.curve.images == 3
    assert found.curve.of(0.8)[-1].rate.value == 1  # a spot of 8 % with much contrast is no riddle
    assert found.notes == ()


def test_a_limit_that_is_exceeded(factory, tmp_path):
    shutil.copytree(factory.root / "good", tmp_path / "bad/none")
    (tmp_path / "good").mkdir()
    for i in range(3):
        shutil.copy(factory.root / f"calibration/{i}.png", tmp_path / f"good/{i}.png")
    found = iadbe.accept(factory.model, tmp_path / "good", tmp_path / "bad", drawn=0, escape=0.2)
    assert found.passed is False
    assert found.curve is found.repeatability is None


def test_what_was_learnt_is_left_out(factory):
    found = iadbe.accept(factory.model, [factory.old, factory.root / "good"], factory.root / "bad", drawn=0)
    assert len(found.challenge.good) < 24
    assert any("left out: the detector has learnt them" in note for note in found.notes)
    assert found.passed is None


def test_mistakes_are_one_sentence(factory, tmp_path):
    good, bad = factory.root / "good", factory.root / "bad"
    with pytest.raises(BadConfig, match="Which is it"):
        iadbe.accept(factory.model, good, [bad, good / "0.png"], drawn=0)
    with pytest.raises(BadConfig, match="repeats need part"):
        iadbe.accept(factory.model, good, bad, repeats=good)
    how = {"protocol": "uniform@32", "store": tmp_path, "options": Options("cpu", images=0)}
    (trained,) = api.train("dfkde", str(factory.old), backbone="test_resnet", weights="none", **how)
    if api.load(trained).calibration.threshold is None:
        with pytest.raises(BadConfig, match="Run `iadbe calibrate` first"):
            iadbe.accept(trained, good, bad)
