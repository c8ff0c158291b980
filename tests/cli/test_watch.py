"""`iadbe watch` judges a folder as `iadbe predict` does."""

import json

import pytest

from part_images import draw


def test_the_verdicts_are_those_of_predict(iadbe, workspace, elsewhere):
    for number in range(2):
        draw(elsewhere / f"in/{number}.png", number)
        draw(elsewhere / f"in/spot{number}.png", number, spot=True)
    predicted = iadbe("predict", workspace.padim, "in", "--format", "jsonl").out
    expected = {row["path"]: row["verdict"] for row in map(json.loads, predicted.splitlines())}
    asked = ("watch", "in", "--model", workspace.padim, "--out", "out", "--once", "--settle", "0", "--move")
    output = iadbe(*asked, "--format", "jsonl")
    assert output.code == 0
    rows = [json.loads(line) for line in output.out.splitlines()]
    assert {row["path"]: row["verdict"] for row in rows} == expected
    assert "out: 2 good, 2 reject; 0 waiting" in output.err
    assert sorted(p.name for p in (elsewhere / "out/reject").iterdir()) == ["spot0.png", "spot1.png"]
    draw(elsewhere / "in/late.png", 5)
    table = iadbe(*asked).out.split()
    assert (table[1], table[-1]) == ("good", "late.png")


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "which folder?"),
        (["in"], 2, "which model?"),
        (["in", "--model", "{padim}"], 2, "where to?"),
        (["none", "--model", "{padim}", "--out", "out"], 1, "there is no folder"),
        (["in", "--model", "{padim}", "--out", "in"], 1, "is the watched folder itself"),
        (["in", "--model", "{padim}", "--out", "out", "--format", "xml"], 2, "--format is one of"),
        (["in", "--model", "{padim}", "--out", "out", "--poll", "0"], 2, "--poll seconds above 0"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, workspace, elsewhere, arguments, code, sentence):
    (elsewhere / "in").mkdir()
    output = iadbe("watch", *(word.format(padim=workspace.padim) for word in arguments))
    assert (output.code, output.out) == (code, "")
    assert sentence in output.err
    assert output.err.count("\n") == 1
