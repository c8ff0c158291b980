"""`iadbe accept`: figures, limits as exit codes, a report."""

import json
from types import SimpleNamespace

import pytest

from iadbe import api
from iadbe.types import Options
from part_images import draw, draw_parts


@pytest.fixture(scope="module")
def factory(tmp_path_factory):
    """A small calibrated model and its challenge set."""
    root = tmp_path_factory.mktemp("factory")
    draw_parts(root / "old", good=12, bad=2)
    for folder, first, count in (("calibration", 200, 30), ("good", 300, 8)):
        for i in range(count):
            draw(root / f"{folder}/{i}.png", first + i)
    for i in range(4):
        draw(root / f"bad/spot/{i}.png", 400 + i, spot=True)
    how = {"protocol": "uniform@64", "store": root / "runs", "options": Options("cpu", features="off", images=0)}
    (trained,) = api.train("golden", str(root / "old"), **how)
    api.calibrate(trained, root / "calibration", overkill=0.05)
    return SimpleNamespace(model=trained.folder, images=("--good", root / "good", "--bad", root / "bad"))


def test_figures_and_report(iadbe, factory, tmp_path):
    report = tmp_path / "acceptance.html"
    output = iadbe(
        "accept",
        factory.model,
        *factory.images,
        "--drawn",
        "2",
        "--escape",
        "0.5",
        "--overkill",
        "0.9",
        "--report",
        report,
    )
    assert output.code == 0
    assert "escape    0 of 4 defective images" in output.out
    assert "contrast 80%:" in output.out
    assert output.out.strip().endswith("passed")
    assert report.is_file()
    assert "the report is in" in output.err


def test_a_limit_is_exceeded(iadbe, factory):
    output = iadbe("accept", factory.model, *factory.images[:2], "--bad", factory.images[1], "--drawn", "0")
    assert (output.code, output.err.count("Which is it?")) == (1, 1)
    images = ("--good", factory.images[3], "--bad", factory.images[1])  # the other way round: all is wrong
    output = iadbe("accept", factory.model, *images, "--drawn", "0", "--escape", "0.1", "--json")
    card = json.loads(output.out)
    assert output.code == 1
    assert card["passed"] is False
    assert card["images"] == {"good": 4, "bad": 8}
    assert card["repeatability"] is None


@pytest.mark.parametrize("wrong", [(), ("--report", "x.txt"), ("--good", "x")])
def test_mistakes_are_usage(iadbe, factory, wrong):
    given = () if wrong[:1] == ("--good",) else factory.images
    output = iadbe("accept", *((factory.model,) if wrong else ()), *given, *wrong)
    assert output.code == 2
    assert output.err.count("\n") <= 2
