"""`iadbe watch`."""

import csv
import json
import shutil
from pathlib import Path

import pytest

from iadbe import api


@pytest.fixture
def calibrated(workspace, tmp_path):
    """A model with three verdicts."""
    folder = tmp_path / "model"
    shutil.copytree(workspace.padim / "model", folder)
    api.calibrate(folder, workspace.parts / "good", device="cpu", overkill=0.4)
    return folder


@pytest.fixture
def incoming(workspace, tmp_path):
    return shutil.copytree(workspace.parts, tmp_path / "incoming")


def test_a_folder_is_judged_sorted_and_drawn(iadbe, calibrated, incoming, tmp_path):
    names = {path.name for path in incoming.rglob("*.png")}
    out = tmp_path / "line1"
    output = iadbe("watch", str(incoming), "--model", str(calibrated), "--out", str(out), "--move", "--draw", "--once")
    assert output.code == 0, output.err
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert rows == [json.loads(line) for line in (out / "verdicts.jsonl").read_text().splitlines()]
    assert len(rows) == len(list(out.glob("good/**/*.png"))) + len(list(out.glob("reject/**/*.png")))
    assert {Path(row["path"]).name for row in rows} == names
    assert {row["verdict"] for row in rows} == {"good", "reject"}
    assert len(list((out / "drawn").glob("*_overlay.png"))) == len(rows)
    assert "reject" in output.err
    assert not list(incoming.rglob("*.png"))


def test_parts_have_a_line_each_in_log_and_table(iadbe, calibrated, incoming, tmp_path):
    out, table = tmp_path / "line1", tmp_path / "shift.csv"
    output = iadbe(
        "watch", str(incoming), "--model", str(calibrated), "--out", str(out), "--once", "--move",
        "--part", "^(good|[^/]+)/", "--csv", str(table),
    )  # fmt: skip
    assert output.code == 0, output.err
    rows = {row["part"]: row for row in map(json.loads, output.out.splitlines())}
    assert len(rows) > 1
    for row in rows.values():
        assert row["defective"] == any(image["defective"] for image in row["images"])
        assert all(Path(image["moved_to"]).parent.parent.name == row["verdict"] for image in row["images"])
    with table.open(newline="", encoding="utf-8") as file:
        assert [line["part"] for line in csv.DictReader(file)] == list(rows)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "which source?"),
        (("SOURCE",), "which model?"),
        (("SOURCE", "--model", "MODEL"), "where to?"),
        (("nowhere", "--model", "MODEL", "--out", "out"), "there is no folder"),
        (("SOURCE/good/000.png", "--model", "MODEL", "--out", "out"), "and no video"),
        (("SOURCE", "--model", "MODEL", "--out", "SOURCE"), "another folder than the watched one"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--webhook", "line"), "--webhook takes an address"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--webhook-secret-file", "f"), "belongs to --webhook"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--mqtt", "line"), "--mqtt takes an address"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--part", "("), "not a regular expression"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--view", "x"), "belong to --part"),
        (("SOURCE", "--model", "MODEL", "--out", "out", "--csv", "SOURCE"), "cannot be written"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, workspace, elsewhere, incoming, words, says):
    first = next(incoming.rglob("*.png")).relative_to(incoming).as_posix()
    given = [
        w.replace("good/000.png", first).replace("SOURCE", str(incoming)).replace("MODEL", str(workspace.padim))
        for w in words
    ]
    output = iadbe("watch", *given)
    assert output.code in (1, 2), output.err
    assert says in output.err
    assert not (elsewhere / "out").exists()
