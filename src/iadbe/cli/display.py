"""What a terminal shows of work under way and of what came out; plain lines where there is no terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from iadbe.executor import Event, Finished, Notice, Planned, Started
from iadbe.executor import Progress as Reported
from iadbe.ranking import label, ranking
from iadbe.seeds import run_id
from iadbe.store import Store
from iadbe.table import Table, to_rich
from iadbe.types import RunResult, RunSpec

WIDE = 160  # columns of a table that is not shown on a terminal


class Grid:
    """A listener for :func:`iadbe.pool.run_all`: the grid, the current runs, time left, loss where there is one."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self.overall = Progress(
            TextColumn("[bold]runs"), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(), console=self.console,
        )  # fmt: skip
        self.current = Progress(
            TextColumn("{task.fields[what]:<44}"), TextColumn("{task.fields[phase]:>9}"), BarColumn(20),
            TextColumn("{task.fields[more]}"), TimeElapsedColumn(), console=self.console,
        )  # fmt: skip
        self.live = Live(Group(self.overall, self.current), console=self.console, refresh_per_second=5, transient=True)
        self.total = self.already = self.finished = 0
        self.bar: TaskID | None = None
        self.bars: dict[str, TaskID] = {}
        self.began = time.monotonic()

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Planned):
            self.total, self.already = event.total, event.already
            self.bar = self.overall.add_task("", total=event.total, completed=event.already, left="")
        elif isinstance(event, Started):
            task = self.current.add_task("", total=None, what=title(event.spec), phase="starting", more="")
            self.bars[run_id(event.spec)] = task
        elif isinstance(event, Reported):
            self._report(event)
        elif isinstance(event, Finished):
            self._finish(event)
        elif isinstance(event, Notice):
            self.console.print(Text(event.text))

    def _report(self, event: Reported) -> None:
        task = self.bars.get(run_id(event.spec))
        if task is None:
            return
        if event.report.phase == "loss":
            self.current.update(task, more=f"loss {event.report.value:.4g}")
        else:
            total = event.report.total or None
            self.current.update(task, phase=event.report.phase, completed=event.report.done, total=total)

    def _finish(self, event: Finished) -> None:
        self.finished += 1
        if (task := self.bars.pop(run_id(event.spec), None)) is not None:
            self.current.remove_task(task)
        done = self.already + self.finished
        if self.bar is not None:
            each = (time.monotonic() - self.began) / self.finished
            left = each * (self.total - done)
            self.overall.update(self.bar, completed=done, left=f"about {_duration(left)} left" if left else "")
        line = Text(f"[{done}/{self.total}] {title(event.spec)}  ")
        if event.result.error:
            line.append(f"failed: {event.result.error.splitlines()[0]}", style="red")
        else:
            first = next((r for r in event.result.rows if r.metric == "image_auroc"), None)
            line.append(f"{label(first.metric)} {first.value:.3f}  " if first else "")
            line.append(f"{event.seconds:.1f} s", style="dim")
        self.console.print(line, soft_wrap=True)


def title(spec: RunSpec) -> str:
    """Return a run's name for people."""
    setting = "" if spec.setting == "vanilla" else f" {spec.setting}"
    return f"{spec.detector} on {spec.dataset} {spec.task}{setting} seed {spec.seed}"


def print_results(store: Store, results: Sequence[RunResult], *, folders: bool = False) -> None:
    """Print the ranking of some results, then what failed and why, then where things are."""
    good = [r for r in results if not r.error]
    if good:
        print_tables(ranking(good, metrics=_shown(good)))
    for note in dict.fromkeys(n for r in good for n in r.notes):
        print(f"note: {note}")
    for result in results:
        if result.error:
            print(f"\n{title(result.spec)} failed: {result.error}\n  log: {short(store.log(result.spec))}")
    if folders:
        for result in good:
            print(f"{title(result.spec)}: {short(store.path(result.spec))}")


def _shown(results: Sequence[RunResult]) -> tuple[str, ...]:
    """Return the metrics for a terminal: not too many."""
    wanted = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
    have = {r.metric for result in results for r in result.rows}
    return tuple(m for m in wanted if m in have) or tuple(sorted(have))


def print_tables(tables: Sequence[Table]) -> None:
    """Print tables with their footnotes."""
    console = Console() if sys.stdout.isatty() else Console(width=WIDE, no_color=True, highlight=False)
    for table in tables:
        console.print(to_rich(table))
        for mark, text in table.footnotes:
            console.print(Text(f"{mark} {text}".strip(), style="dim"))


def print_rows(name: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics by category."""
    print(name)
    metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
    width = max(len(c) for c in rows)
    print(" " * width + "  " + "  ".join(f"{label(m):>12}" for m in metrics))
    for category, row in rows.items():
        print(f"{category:<{width}}  " + "  ".join(f"{_number(row.get(m)):>12}" for m in metrics))


def _number(value: float | None) -> str:
    return "—" if value is None or value != value else f"{value:.4f}"


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar while a block counts (done, total); nothing where there is no terminal."""
    console = Console(stderr=True)
    bar = Progress(TextColumn(what), BarColumn(30), MofNCompleteColumn(), console=console, transient=True)
    task = bar.add_task("", total=None)
    if console.is_terminal:
        bar.start()
    try:
        yield lambda done, total: bar.update(task, completed=done, total=total)
    finally:
        bar.stop()


def short(path: Path) -> Path:
    """Return a path as seen from here, where that is shorter."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


