import json
import shutil

import pytest


def test_what_was_found_is_said(iadbe, world):
    told = iadbe("data", "check", world.mvtec)
    assert told.code == 0
    assert "nut: 8 train (8 good); 6 test (3 good, 3 spot)" in told.out
    assert "looks like the MVTec AD layout" in told.out
    assert told.err == ""


def test_a_broken_picture_is_an_error(iadbe, world, elsewhere):
    shutil.copytree(world.mvtec, elsewhere / "copy")
    (elsewhere / "copy/nut/train/good/1.png").write_bytes(b"")
    told = iadbe("data", "check", "copy", "--json")
    assert told.code == 1
    assert any("1.png" in p["sentence"] for p in json.loads(told.out)["problems"])


def test_a_dataset_can_be_named_with_its_parameters(iadbe, world):
    told = iadbe("data", "check", "folder", "--data.root", world.parts, "--data.abnormal_dir", "scratch", "--json")
    assert json.loads(told.out)["counts"]["parts"]["test"]["scratch"] == 4


@pytest.mark.parametrize(
    ("asked", "code", "sentence"),
    [
        (["check", "./none"], 1, "there is no folder"),
        (["check"], 2, "which data?"),
        ([], 2, "iadbe data check FOLDER"),
        (["chek", "x"], 2, "Did you mean check"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, asked, code, sentence):
    told = iadbe("data", *asked)
    assert told.code == code
    assert sentence in told.err
