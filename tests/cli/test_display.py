from pathlib import Path

from iadbe.cli import display
from iadbe.executor import Finished, Notice, Planned, Progress, Started
from iadbe.progress import Report
from iadbe.types import Row, RunResult, RunSpec

SPEC = RunSpec("padim", "toy", "vanilla", "metal")


def test_a_grid_is_followed_line_by_line_without_a_terminal(capsys):
    good = RunResult(SPEC, rows=(Row(0, "metal", "image_auroc", 0.9),))
    bad = RunResult(SPEC, error="it broke\nlog")
    events = [Planned(2, 0), Started(SPEC, 1), Progress(SPEC, Report("fit", 1, 2)), Notice("a sentence")]
    events += [Progress(SPEC, Report("loss", value=0.5)), Finished(SPEC, good, 1.0), Finished(SPEC, bad, 1.0)]
    with display.Grid() as shown:
        for event in events:
            shown(event)
    said = "".join(capsys.readouterr())
    assert "padim on toy metal" in said
    assert "a sentence" in said
    assert "it broke" in said


def test_short_paths_are_seen_from_here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert display.short(tmp_path / "a/b") == Path("a/b")
