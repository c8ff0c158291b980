"""Progress of a long command that is no grid: a bar for each phase, with the time left."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from iadbe import progress

SILENCE = 60.0  # seconds between two lines where there is no terminal


@contextmanager
def shown(phases: Collection[str] = ()) -> Iterator[None]:
    """Show the progress of the block with the time left and the loss; without a terminal, a line a minute.

    With ``phases``, reports of other phases are not shown.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, highlight=False)
    bar = Progress(
        TextColumn("{task.description:>8}"), BarColumn(30), MofNCompleteColumn(), TextColumn("{task.fields[loss]}"),
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=False), console=console,
        transient=True,
    )  # fmt: skip
    tasks: dict[str, Any] = {}
    printed = time.monotonic()

    def listen(report: progress.Report) -> None:
        nonlocal printed
        if report.phase == "loss":
            for task in tasks.values():
                bar.update(task, loss=f"loss {report.value:.4g}")
            return
        if phases and report.phase not in phases:
            return
        if report.phase not in tasks:
            tasks[report.phase] = bar.add_task(report.phase, total=report.total, completed=report.done, loss="")
        bar.update(tasks[report.phase], completed=report.done)
        if not console.is_terminal and time.monotonic() - printed > SILENCE:
            printed = time.monotonic()
            left = bar.tasks[tasks[report.phase]].time_remaining
            end = "" if left is None else f", about {round(left / 60)} min left"
            console.print(f"{report.phase} {report.done} of {report.total}{end}", soft_wrap=True)

    with bar if console.is_terminal else nullcontext(), progress.listening(listen):
        yield
