"""Long work says how far it is; whoever started it decides where that is shown.

A detector calls :func:`report` and knows no more. The process that runs it installs a listener with
:func:`listening`. Without one, a report costs next to nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple


class Report(NamedTuple):
    """How far one phase of a run is, or (phase "loss") the value of the last training step."""

    phase: str  # "fit", "coreset", "predict", "loss" …
    done: int = 0
    total: int = 0  # 0 where it is not known
    value: float | None = None


Listener = Callable[[Report], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)


def report(phase: str, done: int, total: int = 0) -> None:
    """Say how far a phase is."""
    if listener := _listener.get():
        listener(Report(phase, done, total))


def loss(value: float) -> None:
    """Say what the last training step's loss was."""
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
def budget(seconds: float | None) -> Iterator[None]:
    """Give training loops of the block at most ``seconds`` of wall time; None: no limit."""
    token = _deadline.set(None if seconds is None else time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


def time_is_up() -> bool:
    """Say whether the budget of :func:`budget` is spent."""
    deadline = _deadline.get()
    return deadline is not None and time.monotonic() >= deadline
