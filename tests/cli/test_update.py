"""`iadbe update`: learn, compare, promote, go back."""

import json
from types import SimpleNamespace

import pytest

from iadbe import api
from iadbe.types import Options
from part_images import draw, draw_parts


@pytest.fixture
def line(tmp_path):
    """A small calibrated model, reviewed parts and a challenge set."""
    draw_parts(tmp_path / "old", good=10, bad=2)
    for folder, first, count in (("calibration", 200, 20), ("reviewed/good", 250, 4), ("challenge/good", 300, 6)):
        for i in range(count):
            draw(tmp_path / f"{folder}/{i}.png", first + i)
    for i in range(4):
        draw(tmp_path / f"challenge/spot/{i}.png", 400 + i, spot=True)
    how = {"protocol": "uniform@64", "store": tmp_path / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("golden", str(tmp_path / "old"), **how)
    api.calibrate(trained, tmp_path / "calibration", overkill=0.1)
    return SimpleNamespace(root=tmp_path, run=trained.folder)


def test_from_review_to_promotion_and_back(iadbe, line):
    sets = ("--reviewed", line.root / "reviewed", "--challenge", line.root / "challenge")
    output = iadbe("update", line.run, *sets, "--tolerance", "0.2")
    assert (output.code, output.err.count("give --calibrate")) == (0, 1)
    assert "Promote: on no count" in output.out
    assert (line.run / "model.candidate").is_dir()
    before = (line.run / "model/weights.safetensors").read_bytes()
    output = iadbe("update", line.run, "--promote")
    assert output.code == 0
    assert (line.run / "model/weights.safetensors").read_bytes() != before
    assert (line.run / "model.1").is_dir()
    assert iadbe("update", line.run, "--roll-back").code == 0
    assert (line.run / "model/weights.safetensors").read_bytes() == before
    card = json.loads(iadbe("update", line.run, *sets, "--tolerance", "0.2", "--json", "--promote").out)
    assert card["gate"]["passes"] is True
    assert sorted(path.name for path in line.run.glob("model.*")) == ["model.1", "model.2"]


def test_a_worse_candidate_is_an_exit_code(iadbe, line):
    for number in range(20):
        draw(line.root / f"spots/{number}.png", 500 + number, spot=True)
    sets = (
        "--reviewed",
        line.root / "reviewed",
        "--challenge",
        line.root / "challenge",
        "--calibrate",
        line.root / "spots",
    )
    output = iadbe("update", line.run, *sets, "--promote")
    assert output.code == 1
    assert "Keep the present model" in output.out
    assert not (line.run / "model.1").exists()
    assert "Keep the present model" in iadbe("update", line.run, "--promote").err
    forced = iadbe("update", line.run, "--promote", "--force")
    assert (forced.code, forced.err.count("--roll-back")) == (0, 1)


@pytest.mark.parametrize("wrong", [(), ("MODEL",), ("MODEL", "--roll-back", "--promote")])
def test_mistakes_are_usage(iadbe, line, wrong):
    given = [line.run if word == "MODEL" else word for word in wrong]
    assert iadbe("update", *given).code == 2
