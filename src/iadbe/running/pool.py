"""Carry out the runs that the store lacks. Finished runs are kept, so that an interrupted grid can be resumed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.registry import load
from iadbe.running.executor import Event, Executor, GridPlanned, RunFinished
from iadbe.running.process import completed_result
from iadbe.running.store import Store
from iadbe.running.worker import EXECUTE, PRELOAD, RunContext
from iadbe.seeds import run_id
from iadbe.types import Options, RunResult, RunSpec

Listener = Callable[[Event], Any]


@dataclass(frozen=True, slots=True)
class GridSummary:
    """Number of runs of a grid by outcome."""

    done: int = 0  # without an error, in this call
    failed: int = 0  # with an error, in this call
    already: int = 0  # in the store before this call
    transient: tuple[RunResult, ...] = ()  # those of the failed ones that are not stored
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """How many runs the grid has."""
        return self.done + self.failed + self.already


def results(store: Store, specs: Sequence[RunSpec], transient: Sequence[RunResult] = ()) -> list[RunResult]:
    """Return the stored results of specs; of those that are not stored, the ``transient`` ones of the last call."""
    now = {run_id(result.spec): result for result in transient}
    stored = (store.load(store.path(s).name) if store.has(s) else now.get(run_id(s)) for s in specs)
    return [result for result in stored if result is not None]


def run_all(
    specs: Sequence[RunSpec],
    store: Store,
    options: Options | None = None,
    *,
    executor: str = "local",
    jobs: int = 0,
    scheduler: str = "",
    retry_failed: bool = False,
    listener: Listener | None = None,
    function: str = EXECUTE,
    preload: tuple[str, ...] = PRELOAD,
) -> GridSummary:
    """Carry out the runs that the store lacks, in order, each in a process of its own.

    Args:
        specs: the runs; one that is there twice is carried out once
        store: where results are looked for and kept
        options: how to run
        executor: a name of the registry ``executors``
        jobs: runs at a time; 0: one for each GPU, or one for every four cores
        scheduler: the address of a scheduler, for executors that have one
        retry_failed: run again what the store holds with an error
        listener: is called with every event, in this thread
        function: what is called in a run's process, as ``module:function``
        preload: the modules that a run's process finds imported

    An interrupt (Ctrl-C, SIGTERM, SIGHUP) ends the runs under way, leaves nothing half done, and is raised on as
    :class:`KeyboardInterrupt`; the same call goes on where it stopped.
    """
    notify = listener or (lambda event: None)
    began = time.monotonic()
    if scheduler and executor == "local":
        raise BadConfig(f"--scheduler {scheduler} is for --executor dask; local needs none.")
    place: Executor = load("executors", executor)(
        RunContext(store.root, options or Options(), function, preload), jobs, scheduler
    )
    unique = list({run_id(spec): spec for spec in specs}.values())
    missing = [s for s in unique if not (completed_result(store, s) if retry_failed else store.has(s))]
    done = failed = 0
    transient: list[RunResult] = []
    notify(GridPlanned(len(unique), len(unique) - len(missing)))
    if missing:
        store.check_writable()
        with _interruptible():
            store.sweep()
            with closing(place.run(missing)) as events:
                for event in events:
                    if isinstance(event, RunFinished):
                        done, failed = done + (not event.result.error), failed + bool(event.result.error)
                        transient += [event.result] if event.result.transient else []
                    notify(event)
    return GridSummary(done, failed, len(unique) - len(missing), tuple(transient), time.monotonic() - began)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let other signals that end a process interrupt like Ctrl-C, where no other handler is set."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt(signal.Signals(number).name)

    ours = threading.current_thread() is threading.main_thread()
    caught = [s for s in system.INTERRUPTS if ours and signal.getsignal(s) is signal.SIG_DFL]
    for number in caught:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number in caught:
            signal.signal(number, signal.SIG_DFL)
