"""Progress reports, notes and time budgets of long computations.

A detector calls :func:`report`. The process that runs it installs a listener with :func:`listening` and decides
where the reports go. Without a listener, a report costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple


class Budget:
    """The wall or CPU time that training loops may take; ``ended``: the budget has stopped one of them."""

    def __init__(self, seconds: float | None = None, cpu: bool = False) -> None:
        self.seconds, self.cpu = seconds, cpu
        self.ended = False
        self._deadline = None if seconds is None else self._now() + seconds

    def is_spent(self) -> bool:
        """Return whether the time is up, which ends the loop that asks."""
        spent = self._deadline is not None and self._now() >= self._deadline
        self.ended |= spent
        return spent

    def left(self) -> float | None:
        """Return the seconds that are left, or None without a limit."""
        return None if self._deadline is None else max(0.0, self._deadline - self._now())

    def _now(self) -> float:
        return time.process_time() if self.cpu else time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        """Return what is left."""
        return {"left": self.left(), "ended": self.ended}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Go on with what was left when training was interrupted."""
        self.ended = state_dict["ended"]
        if self._deadline is not None and state_dict["left"] is not None:
            self._deadline = self._now() + state_dict["left"]


class StepCount:
    """Optimisation steps of training loops: ``done`` of ``planned``, summed over the loops of a run."""

    def __init__(self) -> None:
        self.done = 0
        self.planned = 0

    def state_dict(self) -> dict[str, int]:
        """Return both numbers."""
        return {"done": self.done, "planned": self.planned}

    def load_state_dict(self, state_dict: dict[str, int], /) -> None:
        """Take both numbers."""
        self.done, self.planned = state_dict["done"], state_dict["planned"]


class Report(NamedTuple):
    """Progress of one phase of a run, or (phase "loss") the loss of the last training step."""

    phase: str  # "fit", "coreset", "predict", "loss" …
    done: int = 0
    total: int = 0  # 0 where it is not known
    value: float | None = None


Listener = Callable[[Report], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_budgets: ContextVar[tuple[Budget, ...]] = ContextVar("budget", default=())  # the innermost last


_steps: ContextVar[StepCount | None] = ContextVar("steps", default=None)


def training_steps(done: int, planned: int) -> None:
    """Say, at the end of a training loop, how many of its planned steps were done; a time budget may have ended it."""
    if (count := _steps.get()) is not None:
        count.done += done
        count.planned += planned


@contextmanager
def counting_steps() -> Iterator[StepCount]:
    """Count the training steps in the ``with`` block."""
    count = StepCount()
    token = _steps.set(count)
    try:
        yield count
    finally:
        _steps.reset(token)


_notes: ContextVar[list[str] | None] = ContextVar("notes", default=None)


def note(text: str) -> None:
    """Say what a reader of the result must know, in a sentence; it stands there once."""
    if (notes := _notes.get()) is not None and text not in notes:
        notes.append(text)


@contextmanager
def collecting_notes(notes: list[str]) -> Iterator[None]:
    """Append what :func:`note` says in the ``with`` block to ``notes``."""
    token = _notes.set(notes)
    try:
        yield
    finally:
        _notes.reset(token)


def report(phase: str, done: int, total: int = 0) -> None:
    """Report how much of a phase is done, at most ``total`` if it is known."""
    if listener := _listener.get():
        listener(Report(phase, min(done, total) if total else done, total))


def loss(value: float) -> None:
    """Report the loss of the last training step."""
    if listener := _listener.get():
        listener(Report("loss", value=value))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Send every report of the block to ``listener``."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


@contextmanager
def adding_listener(listener: Listener) -> Iterator[None]:
    """Send every report of the block to ``listener`` too, beside the present listener."""
    first = _listener.get()

    def both(report: Report) -> None:
        if first is not None:
            first(report)
        listener(report)

    with listening(both):
        yield


@contextmanager
def budget(seconds: float | None, cpu: bool = False) -> Iterator[Budget]:
    """Give training loops of the block at most ``seconds`` of wall or, with ``cpu``, of CPU time; None: no limit."""
    given = Budget(seconds, cpu)
    token = _budgets.set((*_budgets.get(), given))
    try:
        yield given
    finally:
        _budgets.reset(token)


@contextmanager
def budget_share(share: float) -> Iterator[None]:
    """Give training loops of the block ``share`` of the time that is left, so that a later block has some too."""
    outer = budgets()
    left = outer[-1].left() if outer else None
    with budget(None if left is None else share * left, bool(outer) and outer[-1].cpu) as part:
        yield
    if outer:
        outer[-1].ended |= part.ended  # a loop was stopped before its end, if not by the last second


def budgets() -> tuple[Budget, ...]:
    """Return the budgets of the blocks around the caller, the innermost last; that one ends loops."""
    return _budgets.get()


def time_is_up() -> bool:
    """Return whether the budget of :func:`budget` is spent; a training loop that asks then ends."""
    given = budgets()
    return bool(given) and given[-1].is_spent()
