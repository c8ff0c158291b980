import json

import pytest

from iadbe.cli import main


def said(capsys, *asked):
    assert main(["results", *asked]) == 0
    return capsys.readouterr().out


def test_tables_in_every_form(store, capsys, tmp_path):
    capsys.readouterr()
    assert "padim" in said(capsys, "table", "--store", str(store))
    assert "| padim" in said(capsys, "table", "--store", str(store), "--format", "markdown")
    assert json.loads(said(capsys, "table", "--store", str(store), "--format", "json"))
    for suffix, sign in ((".csv", "padim"), (".tex", r"\toprule"), (".md", "|"), (".json", "[")):
        file = tmp_path / f"table{suffix}"
        said(capsys, "export", str(file), "--store", str(store))
        assert sign in file.read_text()


def test_single_runs_and_one_run(store, model, capsys):
    assert "padim" in said(capsys, "table", "--runs", "--store", str(store))
    shown = said(capsys, "show", model.name.rpartition("-")[2], "--store", str(store))
    assert "image_auroc" in shown.replace(" ", "_") or "image AUROC" in shown


def test_the_index_is_made_anew(store, capsys):
    (store / "index.sqlite").unlink(missing_ok=True)
    assert "1 run" in said(capsys, "rebuild", "--store", str(store))


@pytest.mark.parametrize(
    ("asked", "code"),
    [(["table", "--store", "{empty}"], 1), (["tabel"], 2), (["show"], 2), (["show", "zzz", "--store", "{empty}"], 1)],
)
def test_mistakes_are_one_sentence(asked, code, tmp_path, capsys):
    assert main(["results", *(a.format(empty=tmp_path) for a in asked)]) == code
    assert capsys.readouterr().err.startswith("iadbe: ")
