from iadbe import progress
from iadbe.cli import progress_bar


def test_without_a_terminal_a_line_says_how_long_it_will_take(capsys, monkeypatch):
    clock = iter(range(0, 10_000, 61))
    monkeypatch.setattr(progress_bar.time, "monotonic", lambda: next(clock))
    with progress_bar.shown(("maps",)):
        progress.report("maps", 1, 4)
        progress.report("predict", 3, 3)
        progress.loss(0.5)
        progress.report("maps", 2, 4)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["maps 1 of 4", "maps 2 of 4"]


def test_all_phases_are_shown_where_none_is_named(capsys, monkeypatch):
    monkeypatch.setattr(progress_bar, "SILENCE", -1.0)
    with progress_bar.shown():
        progress.report("fit", 1, 2)
        progress.loss(0.25)
        progress.report("coreset", 1, 2)
    assert [line.split()[0] for line in capsys.readouterr().err.splitlines()] == ["fit", "coreset"]
