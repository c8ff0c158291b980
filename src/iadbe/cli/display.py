"""Terminal output: progress of a grid, result tables, failures. Plain lines where there is no terminal."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import fmean
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from iadbe.cli.table_output import print_tables
from iadbe.errors import IadbeError, number_of
from iadbe.registry import card
from iadbe.results.comparison import compare
from iadbe.results.entry import is_changed
from iadbe.results.names import data_and_category, data_title, format_value, setting_name
from iadbe.results.style import label
from iadbe.running.executor import Event, GridMessage, GridPlanned, RunFinished, RunProgress, RunStarted
from iadbe.running.store import Store
from iadbe.seeds import run_id
from iadbe.types import RunResult, RunSpec

FEW = 3  # runs that are named where many have failed alike
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")


class Grid:
    """A listener for :func:`iadbe.running.pool.run_all`: the grid, current runs, time left, loss where there is one."""

    def __init__(self, *, shows_done: bool = True, expected: Callable[[], float | None] = lambda: None) -> None:
        """Make the display.

        Args:
            shows_done: whether to say how many runs were done before
            expected: gives the seconds that a run may take, for the time left before one has finished; it is called on
                a terminal only
        """
        self.console = Console(stderr=True, highlight=False)
        self.shows_done = shows_done
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
        self.expected = expected() if self.console.is_terminal else None

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, GridPlanned):
            self.total, self.already = event.total, event.already
            if event.already and self.shows_done:
                self.console.print(f"{event.already} of {event.total} done before, and kept", soft_wrap=True)
            self.bar = self.overall.add_task("", total=event.total, completed=event.already, left="")
            self._show_time_left()
            if event.already < event.total and not self.console.is_terminal:
                count = event.total - event.already
                self.console.print(f"{number_of(count, 'run')} to do; processes start", soft_wrap=True)
        elif isinstance(event, RunStarted):
            task = self.current.add_task("", total=None, what=title(event.spec), phase="starting", more="")
            self.bars[run_id(event.spec)] = task
            self._show_time_left()
        elif isinstance(event, RunProgress):
            self._report(event)
            self._show_time_left()
        elif isinstance(event, RunFinished):
            self._finish(event)
        elif isinstance(event, GridMessage):
            self.console.print(Text(event.text))

    def _report(self, event: RunProgress) -> None:
        task = self.bars.get(run_id(event.spec))
        if task is None:
            return
        if event.report.phase == "resumed":
            self.console.print(f"{title(event.spec)}: training goes on after step {event.report.done}", soft_wrap=True)
        elif event.report.phase == "loss":
            self.current.update(task, more=f"loss {event.report.value:.4g}")
        else:
            total = event.report.total or None
            self.current.update(task, phase=event.report.phase, completed=event.report.done, total=total)

    def _show_time_left(self) -> None:
        """Estimate from the runs that have finished; before there is one, from what the store knows of such runs."""
        left, spent = self.total - self.already - self.finished, time.monotonic() - self.began
        seconds = None
        if self.finished:
            seconds = spent / self.finished * left
        elif self.expected is not None:
            seconds = max(1.0, self.expected * left / max(1, len(self.bars)) - spent)
        if self.bar is not None:
            self.overall.update(self.bar, left=f"about {duration(seconds)} left" if seconds and left else "")

    def _finish(self, event: RunFinished) -> None:
        self.finished += 1
        if (task := self.bars.pop(run_id(event.spec), None)) is not None:
            self.current.remove_task(task)
        done = self.already + self.finished
        if self.bar is not None:
            self.overall.update(self.bar, completed=done)
        self._show_time_left()
        line = Text(f"[{done}/{self.total}] {title(event.spec)}  ")
        if event.result.error:
            why = "" if self.total == 1 else f": {event.result.error.splitlines()[0]}"  # printed at the end
            line.append(f"failed{why}", style="red")
        else:
            first = next((r for r in event.result.rows if r.metric == "image_auroc" and r.value == r.value), None)
            line.append(f"{label(first.metric)} {first.value:.3f}  " if first else "")
            line.append(f"{event.seconds:.1f} s", style="dim")
        self.console.print(line, soft_wrap=True)


def title(spec: RunSpec, folder: str = "") -> str:
    """Return a run's name for people; with the parameters that are not the defaults. ``folder`` is that of its data."""
    data = data_and_category(spec, folder)
    setting = "" if spec.setting == "vanilla" else f", {setting_name(spec)}"
    with suppress(IadbeError, ImportError, OSError, SyntaxError):
        defaults = {p.name: p.default for p in card("detectors", spec.detector).parameters}
        own = {
            k: v
            for k, v in spec.detector_params.items()
            if k in defaults and format_value(v) != format_value(defaults[k])
        }
        given = ", ".join(f"{k}={format_value(v)}" for k, v in own.items())
        detector = f"{spec.detector}{f'({given})' if given else ''}"
        return f"{detector} on {data}{setting}, seed {spec.seed}"
    return f"{spec.detector} on {data}{setting}, seed {spec.seed}"


def print_results(store: Store, results: Sequence[RunResult], metrics: Sequence[str] = ()) -> None:
    """Print the ranking of results with its summary, then failures and their reasons."""
    lasting = [r for r in results if not r.transient]  # what only this machine lacks says nothing about a detector
    if any(not r.error for r in lasting):
        from iadbe.report.summary import summarise  # it takes long to import
        from iadbe.results.ranking import ranking

        tables = ranking(lasting, metrics or default_metrics(lasting))
        for table, comparison in zip(tables, compare(lasting), strict=True):
            print_tables([table])
            if len(comparison.entries) > 1:
                print(f"{summarise(comparison).sentence}\n")
    print_failures(store, results)


def print_trained(store: Store, results: Sequence[RunResult], printed: Collection[str] = ()) -> None:
    """Print what training has made: metrics, models, notes that were not printed before, and the next command."""
    good = [r for r in results if not r.error]
    if good:
        rows: dict[str, dict[str, float]] = {}
        changed = set()
        for result in good:
            last = max((r.step for r in result.rows), default=0)
            for row in (r for r in result.rows if r.step == last):
                if is_changed(result, row.test):
                    changed.add(row.test)
                else:
                    rows.setdefault(row.test, {})[row.metric] = row.value
        print_rows(f"{good[0].spec.detector} on {data_title(good[0])}", rows)
        if changed:
            print(f"and {len(changed)} tests of changed images: `iadbe results --setting shifted --by kind` shows them")
        print("\nmodels:")
    for result in good:
        folder = store.path(result.spec)
        threshold, how = calibration(folder)
        limit = "no threshold" if threshold is None else f"threshold {threshold:.4g}"
        print(f"  {short(folder)}\n    {limit}" + (f": {how}" if how else ""))
    for note in dict.fromkeys(n for r in good for n in r.notes if n not in printed):
        print(f"note: {note}")
    print_failures(store, results)
    if good:
        print(f"\nNext: iadbe predict {short(store.path(good[0].spec))} IMAGES --out heat")


def print_failures(store: Store, results: Sequence[RunResult]) -> None:
    """Print failed runs by reason, with their logs."""
    reasons: dict[str, list[RunResult]] = {}
    for result in results:
        if result.error:
            reasons.setdefault(result.error, []).append(result)
    for reason, failed in reasons.items():
        print(f"failed: {reason}")
        for one in failed[:FEW]:
            print(f"  {title(one.spec, one.data_name)}, log: {short(store.log(one.spec))}")
        if len(failed) > FEW:
            print(f"  and {len(failed) - FEW} more")


def calibration(folder: Path) -> tuple[float | None, str]:
    """Return the threshold of a run's model, if it has one, and where it comes from."""
    try:
        found = json.loads((folder / "model" / "detector.json").read_text(encoding="utf-8"))["calibration"]
    except (OSError, ValueError, KeyError):
        return None, ""
    return found["threshold"], found["how"]


def default_metrics(results: Sequence[RunResult]) -> tuple[str, ...]:
    """Return the metrics that fit a terminal."""
    have = {r.metric for result in results for r in result.rows}
    return tuple(m for m in SHOWN if m in have) or tuple(sorted(have))


def print_rows(name: str, rows: Mapping[str, Mapping[str, float]]) -> None:
    """Print metrics by category, and their means where there are several."""
    metrics = list(dict.fromkeys(m for row in rows.values() for m in row))
    if len(rows) > 1:
        rows = {**rows, "mean": {m: fmean([r[m] for r in rows.values() if m in r]) for m in metrics}}
    lines = [["category", *map(label, metrics)]]
    lines += [[category, *(_number(row.get(m)) for m in metrics)] for category, row in rows.items()]
    first, *widths = (max(len(line[i]) for line in lines) for i in range(len(metrics) + 1))
    print(name)
    for category, *cells in lines:
        print("  ".join([category.ljust(first), *(c.rjust(w) for c, w in zip(cells, widths, strict=True))]).rstrip())


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
        if console.is_terminal:
            bar.stop()


def short(path: Path) -> Path:
    """Return a path relative to the current folder, if it lies below it."""
    try:
        return path.relative_to(Path.cwd())
    except ValueError:
        return path


def duration(seconds: float) -> str:
    """Return a time for people: ``40 s``, ``3 min 5 s``, ``2 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
