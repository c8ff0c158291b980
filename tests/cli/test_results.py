import csv
import io
import json
import shutil

import pytest

from fake_results import result
from iadbe.running.store import Store
from iadbe.types import Row


@pytest.fixture
def store(workspace, elsewhere):
    """The workspace's store, to change at will."""
    return shutil.copytree(workspace.store, elsewhere / "runs", ignore=shutil.ignore_patterns("model", "images"))


def test_a_ranking_is_what_is_shown(iadbe, store):
    output = iadbe("results")
    assert output.code == 0
    assert output.out == iadbe("results", "table").out
    assert {"padim(dims=16)" in output.out or "padim" in output.out, "dfkde" in output.out} == {True}
    assert "pixel AUPRO@5%" not in output.out, "a terminal has no room for all"
    assert "pixel AUPRO@5%" in iadbe("results", "--metric", "pixel_aupro@5%").out


def test_tables_in_every_form(iadbe, store, elsewhere):
    assert "| padim" in iadbe("results", "--format", "markdown").out
    rows = list(csv.DictReader(io.StringIO(iadbe("results", "--format", "csv").out)))
    assert {float(row["image_auroc"]) for row in rows} == {1.0}
    assert json.loads(iadbe("results", "--format", "json").out)
    for suffix, sign in ((".csv", "padim"), (".tex", r"\toprule"), (".md", "|"), (".json", "[")):
        assert iadbe("results", "export", f"out/table{suffix}").code == 0
        assert sign in (elsewhere / f"out/table{suffix}").read_text()


def test_intervals_appear_next_to_image_metrics_unless_they_are_not_wanted(iadbe, store):
    row = next(csv.DictReader(io.StringIO(iadbe("results", "--detector", "padim", "--format", "csv").out)))
    assert float(row["image_auroc_low"]) < float(row["image_auroc_high"]) == 1.0
    assert "pixel_auroc_low" not in row
    output = iadbe("results", "--detector", "padim", "--format", "csv", "--no-intervals").out
    assert "auroc_low" not in output


def test_the_mean_of_seven_is_a_column(iadbe, store):
    assert "mAD" in iadbe("results", "--metric", "mad").out


def test_ranks_as_an_image(iadbe, elsewhere):
    store = Store(elsewhere / "runs")
    for i in range(4):
        store.save(result("padim", f"c{i}", {"image_auroc": 0.9}))
        store.save(result("stfpm", f"c{i}", {"image_auroc": 0.8}))
    assert iadbe("results", "export", "out/ranks.svg").code == 0
    assert "padim (1.00)" in (elsewhere / "out/ranks.svg").read_text()
    store.save(result("padim", "c0", {"image_auroc": 0.9}, protocol="paper"))
    output = iadbe("results", "export", "out/ranks.svg")
    assert (output.code, "there are 2" in output.err) == (2, True)


def test_filters_and_other_tables(iadbe, store):
    assert "dfkde" not in iadbe("results", "--detector", "padim").out
    assert "nut" in iadbe("results", "--by", "category", "--metric", "pixel_auroc").out.splitlines()[1]
    assert len(iadbe("results", "--runs", "--detector", "padim,dfkde").out.strip().splitlines()) >= 4
    assert "100.0" in iadbe("results", "--percent").out


def test_a_protocol_with_a_comma_in_its_name_is_one(iadbe, elsewhere):
    store = Store(elsewhere / "runs")
    for protocol in ("uniform", "uniform,pad", "paper,native"):
        store.save(result("padim", "c0", {"image_auroc": 0.9}, protocol=protocol))
    output = iadbe("results", "--protocol", "uniform,pad, paper,native")
    assert [line for line in output.out.splitlines() if "protocol" in line] == [
        "mvtec_ad, vanilla, protocol paper,native",
        "mvtec_ad, vanilla, protocol uniform,pad",
    ]


def test_one_run_is_shown_whole(iadbe, store, workspace):
    output = iadbe("results", "show", workspace.padim.name.rpartition("-")[2][:8])
    assert output.code == 0
    for fact in ("image_auroc", "1.0000", "dims", "latency ms", "folder: runs/padim"):
        assert fact in output.out


def test_a_report_and_a_new_index(iadbe, store, elsewhere):
    assert iadbe("results", "report", "r.html", "--detector", "padim").code == 0
    assert "<html" in (elsewhere / "r.html").read_text()
    (store / "index.sqlite").unlink(missing_ok=True)
    assert iadbe("results", "rebuild").out == "2 runs are in the index of runs\n"


def test_a_read_only_store_has_tables_but_no_index_of_its_own(iadbe, store, monkeypatch):
    monkeypatch.setattr(Store, "is_read_only", True)
    assert iadbe("results").code == 0
    output = iadbe("results", "rebuild")
    assert output.code == 1
    assert "is read-only, so it has no index. Name a database with --database URL." in output.err


def test_a_damaged_run_is_left_out_and_reported(iadbe, store):
    next(store.glob("dfkde-*/result.json")).write_text("{")
    output = iadbe("results")
    assert output.code == 0
    assert "left out: " in output.out
    assert "padim" in output.out


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--store", "nowhere"], 1, "there is no folder"),
        (["--store", "."], 1, "there are no such runs"),
        (["tabel"], 2, "Did you mean table"),
        (["show"], 2, "needs a run"),
        (["show", "zzz"], 1, "'zzz'"),
        (["export"], 2, "needs a file"),
        (["export", "x.xls"], 2, "must end in one of .csv"),
        (["export", "x.svg"], 1, "three categories"),
        (["export", "x.svg", "--metric", "image_aurok"], 1, "Did you mean image_auroc"),
        (["table", "x.csv"], 2, "`export FILE`"),
        (["--metric", "image_aurok"], 1, "Did you mean image_auroc"),
        (["--by", "colour"], 2, "--by is one of category"),
        (["--format", "xml"], 2, "--format is one of"),
        (["--detector", "padm"], 1, "Did you mean padim"),
        (["--seed", "x"], 2, "--seed takes whole numbers"),
    ],
)
def test_mistakes_are_one_sentence(iadbe, store, arguments, code, sentence):
    output = iadbe("results", *arguments)
    assert output.code == code
    assert sentence in output.err
    assert output.err.count("\n") == 1


def test_what_changes_cost(iadbe, elsewhere):
    rows = [Row(0, test, "image_auroc", value) for test, value in (("a", 0.9), ("a, blur 1", 0.8), ("a, noise 1", 0.5))]
    Store(elsewhere / "runs").save(result("padim", "a", rows=tuple(rows), setting="shifted", metrics=("image_auroc",)))
    lines = iadbe("results", "--by", "kind").out.splitlines()
    assert lines[1].split() == ["detector", "unchanged", "blur", "noise", "mean", "of", "these", "lost"]
    assert lines[2].split() == ["padim", "0.900", "0.800", "0.500", "0.650", "0.250"]
    assert [line for line in iadbe("results", "--by", "change").out.splitlines() if "under blur" in line]
    output = iadbe("results", "--by", "kinds")
    assert (output.code, "--by is one of category, kind, strength, change" in output.err) == (2, True)


def test_without_changes_there_is_nothing_to_break_down(iadbe, store):
    assert "for runs in the setting shifted, and there are none" in iadbe("results", "--by", "strength").err


def test_runs_are_removed(iadbe, elsewhere):
    store = Store(elsewhere / "runs")
    first, second, third = (store.save(result(name)) for name in ("padim", "patchcore", "dfm"))
    store.log(store.load(first.name).spec).parent.mkdir(parents=True)
    store.log(store.load(first.name).spec).touch()
    assert len(iadbe("results", "--runs").out.splitlines()) > 3
    output = iadbe("results", "remove", f"{first.name},{second.name[-12:]}")
    assert (output.code, output.out.splitlines()) == (0, [f"removed runs/{p.name}" for p in (first, second)])
    assert [f.name for f in store.folders()] == [third.name]
    assert list((store.root / ".logs").iterdir()) == []
    assert "padim" not in iadbe("results").out
    assert "no run in" in iadbe("results", "remove", "zzz").err
    assert "results remove needs a run" in iadbe("results", "remove").err
