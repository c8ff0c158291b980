"""Parts as a table, JSON lines and CSV."""

import csv
import io
import json
from pathlib import Path

import pytest

from iadbe.cli.part_output import COLUMNS, print_parts
from iadbe.evaluation.calibration import Calibration
from iadbe.runtime.parts import Combination
from iadbe.runtime.scored_image import ScoredImage

SCORES = {"p1_a.png": 1.0, "p1_b.png": 4.0, "p2_a.png": 2.0, "p3_a.png": 0.5}


def printed(form, calibration=None, *, combine=True, **more):
    found = [ScoredImage(Path(name), score, 3.0, scaled=0.5, look_threshold=1.5) for name, score in SCORES.items()]
    found += [ScoredImage(Path("p3_b.png"), float("nan"), error="it cannot be read")]
    calibration = calibration or Calibration("x", 3.0)
    file = io.StringIO()
    rows = [(one, {"path": str(one.path)}) for one in found]
    failed = print_parts(rows, (r"p\d", r"_(\w)"), calibration, form, file, combine=combine)
    assert failed == 1
    return file.getvalue()


def test_a_table_counts_parts():
    lines = printed("table").splitlines()
    assert lines[0].split()[:4] == ["4", "DEFECT", "0.500", "p1"]
    assert "(2 images, highest p1_b.png)" in lines[0]
    assert lines[1].split()[:2] == ["2", "look"]
    assert "1 of 2 images could not be scored: it cannot be read" in lines[2]
    assert lines[-1] == "3 parts: 1 reject, 1 look, 1 without a verdict"


def test_json_lines_hold_the_images():
    first, _, third = map(json.loads, printed("jsonl").splitlines())
    assert (first["part"], first["verdict"], first["threshold"], first["defective"]) == ("p1", "reject", 3.0, True)
    assert first["images"] == [{"path": "p1_a.png"}, {"path": "p1_b.png"}]
    assert (third["verdict"], third["defective"]) == (None, None)


def test_csv_has_a_row_for_each_part():
    rows = list(csv.DictReader(io.StringIO(printed("csv"))))
    assert tuple(rows[0]) == COLUMNS
    assert [(row["part"], row["images"], row["verdict"]) for row in rows] == [
        ("p1", "2", "reject"), ("p2", "1", "look"), ("p3", "2", ""),
    ]  # fmt: skip


def test_the_models_combination_decides_unless_a_threshold_is_given():
    calibration = Calibration("x", 3.0, combination=Combination({"a": (0.1, 0.2), "b": (0.1, 0.2)}, 0.01))
    combined = [json.loads(line) for line in printed("jsonl", calibration).splitlines()]
    assert [part["verdict"] for part in combined] == ["reject", "reject", "reject"]
    assert combined[0]["threshold"] == 0.01
    given = [json.loads(line) for line in printed("jsonl", calibration, combine=False).splitlines()]
    assert [part["verdict"] for part in given] == ["reject", "look", None]


@pytest.mark.parametrize(("unit", "noted"), [("images", True), ("parts", False)])
def test_a_guarantee_on_images_is_said_not_to_be_on_parts(capsys, unit, noted):
    printed("csv", Calibration("x", 3.0, good=99, unit=unit))
    assert ("the guarantee of this model is on single images" in capsys.readouterr().err) is noted
