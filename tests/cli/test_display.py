import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from fake_results import result
from iadbe.cli import display
from iadbe.progress import Report
from iadbe.running.executor import GridMessage, GridPlanned, RunFinished, RunProgress, RunStarted
from iadbe.running.store import Store
from iadbe.types import Row, RunResult, RunSpec

SPEC = RunSpec("padim", "toy", "vanilla", "metal")


def test_a_grid_is_followed_line_by_line_without_a_terminal(capsys):
    good = RunResult(SPEC, rows=(Row(0, "metal", "image_auroc", 0.9),))
    bad = RunResult(SPEC, error="it broke\nlog")
    events = [GridPlanned(3, 1), RunStarted(SPEC, 1), RunProgress(SPEC, Report("fit", 1, 2)), GridMessage("a sentence")]
    events += [RunProgress(SPEC, Report("resumed", 40)), RunProgress(SPEC, Report("fit", 41, 60))]
    events += [RunProgress(SPEC, Report("loss", value=0.5)), RunFinished(SPEC, good, 1.0), RunFinished(SPEC, bad, 1.0)]
    with display.Grid() as shown:
        for event in events:
            shown(event)
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.splitlines() == [
        "1 of 3 done before, and kept",
        "2 runs to do; processes start",
        "a sentence",
        "padim on toy metal, seed 0: training goes on after step 40",
        "[2/3] padim on toy metal, seed 0  image AUROC 0.900  1.0 s",
        "[3/3] padim on toy metal, seed 0  failed: it broke",
    ]


def test_the_time_left_is_known_before_the_first_run_has_finished(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(display.Console, "is_terminal", True)
    shown = display.Grid(expected=lambda: 30.0)

    def left():
        return shown.overall.tasks[0].fields["left"]

    shown(GridPlanned(5, 1))
    assert left() == "about 2 min 0 s left"
    for seed in (0, 1):
        shown(RunStarted(replace(SPEC, seed=seed), 1))
    assert left() == "about 1 min 0 s left"  # two at a time
    now[0] += 10
    shown(RunProgress(SPEC, Report("fit", 1, 2)))
    assert left() == "about 50 s left"
    now[0] += 10
    shown._finish(RunFinished(SPEC, RunResult(SPEC), 20.0))
    assert left() == "about 1 min 0 s left"  # 20 s for each of three


def test_without_a_terminal_nobody_asks_how_long_it_takes():
    display.Grid(expected=lambda: pytest.fail("the store was read"))


@pytest.mark.parametrize(
    ("changes", "title"),
    [
        ({}, "padim on toy metal, seed 0"),
        ({"detector_params": {"dims": 100, "layers": [1, 2, 3]}}, "padim on toy metal, seed 0"),
        ({"detector_params": {"dims": 5}}, "padim(dims=5) on toy metal, seed 0"),
        ({"setting": "few_shot", "setting_params": {"k": 2}}, "padim on toy metal, few_shot(k=2), seed 0"),
        ({"detector": "gone:Mine"}, "gone:Mine on toy metal, seed 0"),
        ({"dataset": "folder", "task": "parts", "place": {"root": "/d/parts"}}, "padim on parts, seed 0"),
        ({"dataset": "mvtec_ad", "task": "nut", "place": {"root": "/d/mine"}}, "padim on mine nut, seed 0"),
        ({"dataset": "mvtec_ad", "task": "cable", "place": {"root": "/d/mine"}}, "padim on mvtec_ad cable, seed 0"),
    ],
)
def test_a_run_has_a_title(changes, title):
    given = {"detector": "padim", "dataset": "toy", "setting": "vanilla", "task": "metal", **changes}
    assert display.title(RunSpec(**given)) == title


def test_a_ranking_is_followed_by_what_it_means(capsys, tmp_path):
    results = [result("padim", values={"image_auroc": 0.5}), result("dfm", values={"image_auroc": 0.75})]
    display.print_results(Store(tmp_path), results)
    assert "dfm finds the defects best" in capsys.readouterr().out


def test_failures_are_grouped_by_reason(capsys, tmp_path):
    failed = [result("padim", seed=i, error="no weights") for i in range(5)] + [result("dfm", error="other")]
    display.print_failures(Store(tmp_path), failed)
    output = capsys.readouterr().out
    assert output.count("failed: ") == 2
    assert output.count("seed") == 3 + 1
    assert "and 2 more" in output


def test_numbers_by_category_have_a_mean(capsys):
    display.print_rows("padim on x", {"nut": {"image_auroc": 0.5}, "bolt": {"image_auroc": 1.0, "pixel_ap": math.nan}})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:] == [
        ["category", "image", "AUROC", "pixel", "AP"], ["nut", "0.5000", "—"], ["bolt", "1.0000", "—"],
        ["mean", "0.7500", "—"],
    ]  # fmt: skip


def test_a_models_threshold_is_reported(tmp_path):
    assert display.calibration(tmp_path) == (None, "")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/detector.json").write_text(json.dumps({"calibration": {"threshold": 2.5, "how": "so"}}))
    assert display.calibration(tmp_path) == (2.5, "so")


def test_counting_is_silent_where_there_is_no_terminal(capsys):
    with display.counting("looking") as progress:
        progress(1, 2)
    assert "".join(capsys.readouterr()) == ""


def test_short_paths_are_relative_to_the_current_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert display.short(tmp_path / "a/b") == Path("a/b")
    assert display.short(Path("/elsewhere")) == Path("/elsewhere")


def test_the_mean_of_what_was_trained_is_of_unchanged_images(capsys, tmp_path):
    tests = {"a": 0.9, "a, blur 1": 0.1, "b": 0.7, "b, blur 1": 0.1}
    rows = tuple(Row(0, test, "image_auroc", value) for test, value in tests.items())
    display.print_trained(Store(tmp_path), [result("padim", "a", rows=rows, setting="shifted")])
    lines = capsys.readouterr().out.splitlines()
    assert next(line for line in lines if line.startswith("mean")).split()[1] == "0.8000"
    assert "and 2 tests of changed images: `iadbe results --setting shifted --by kind` shows them" in lines
    assert not [line for line in lines if line.startswith("a, blur")]
