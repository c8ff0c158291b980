"""Supervises the process of a run: reports, limits of time and memory, exit.

A crash, a hang or too much memory ends that process only, and becomes the run's result with an error.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from iadbe import system
from iadbe.errors import BadData, NoSpace
from iadbe.files.byte_sizes import format_bytes
from iadbe.progress import Report
from iadbe.running.store import Store
from iadbe.running.worker import END, EXIT_TERMINATED, RunContext, process_main, start
from iadbe.types import RunResult, RunSpec

POLL_SECONDS = 0.25  # seconds between two checks of a run's limits
GRACE_SECONDS = 3.0  # that an interrupted run has to clean up
LOG_LINES = 12  # lines of the log that explain a crash
FORK_SERVER_DIED = 255  # exit code, as multiprocessing reports it


def completed_result(store: Store, spec: RunSpec) -> RunResult | None:
    """Return the stored result of a run without an error, or None."""
    if store.has(spec):
        with suppress(BadData):  # damaged, or another process is replacing it
            result = store.load(store.path(spec).name)
            return None if result.error else result
    return None


class RunProcess:
    """The process of one run, supervised from the parent process.

    Call :meth:`poll` until ``result`` is there; :func:`stop` ends it before its time.
    """

    def __init__(self, spec: RunSpec, context: RunContext, environment: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.context = context
        self.result: RunResult | None = None
        self.peak = 0  # bytes of resident memory, where there is a limit
        self._checked = 0.0
        self._disconnected = False
        self._connection, theirs = multiprocessing.Pipe()
        arguments = (theirs, spec, context, {**os.environ, **(environment or {})})
        self._process = start(process_main, arguments, context.preload, f"iadbe {spec.detector}")
        theirs.close()
        self.started = time.monotonic()
        self.pid: int = self._process.pid or 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def wait_handles(self) -> list[Any]:
        """Handles for :func:`multiprocessing.connection.wait`: a message, or the end of the process."""
        return [self._process.sentinel] if self._disconnected else [self._process.sentinel, self._connection]

    def poll(self) -> Iterator[Report]:
        """Yield the reports since the last call, and end the run if it exceeds a limit."""
        ended = not self._process.is_alive()  # checked first: its last messages are read below
        last: tuple[RunResult | None, str | NoSpace] | None = None
        try:
            while last is None and not self._disconnected and self._connection.poll():
                message = self._connection.recv()
                if isinstance(message, Report):
                    yield message
                else:
                    last = message
        except (EOFError, OSError):  # the pipe is closed, or the process died within a message
            self._disconnected = True
        except Exception as error:
            last = (None, f"its result cannot be read: {type(error).__name__}: {error}")
        if last is not None:
            self._receive_outcome(*last)
        elif ended:
            self._fail(self._crash_report())
        elif broken := self._broken_limit():
            self._fail(broken)

    def _receive_outcome(self, result: RunResult | None, error: str | NoSpace) -> None:
        """Take the outcome that the process sent; it has stored the result itself."""
        self._process.join(GRACE_SECONDS)
        self.kill()
        if isinstance(error, NoSpace):
            raise error
        self.result = result
        if result is None:
            self._fail(error)

    def _fail(self, error: str) -> None:
        """Store the error as the run's result, unless the process has stored a good one before."""
        self.kill()
        if (found := completed_result(self.context.store, self.spec)) is not None:
            self.result = found
            return
        self.result = failed_result(self.spec, error, self.seconds, self.peak)
        self.context.store.save(self.result)
        self.context.store.sweep()

    def _broken_limit(self) -> str:
        options = self.context.options
        if options.time_limit is not None and self.seconds > options.time_limit:
            return f"stopped after {self.seconds:.0f} s: time limit {options.time_limit:g} s"
        if options.memory_limit is not None and time.monotonic() - self._checked >= POLL_SECONDS:
            self._checked = time.monotonic()
            used = resident_memory(self.pid)
            self.peak = max(self.peak, used)
            if used > options.memory_limit:
                return f"killed at {format_bytes(used)}: memory limit {format_bytes(options.memory_limit)}"
        return ""

    def _crash_report(self) -> str:
        """Return how the process ended, with the last lines of its log."""
        code = self._process.exitcode
        if code in (EXIT_TERMINATED, FORK_SERVER_DIED):
            time.sleep(POLL_SECONDS)  # whoever stops the whole grid signals us too: then it is an interrupt
        how = system.crash_text(code)
        lines = log_tail(self.context.store.log(self.spec))
        return "\n".join([how, *(f"    {line}" for line in lines)])

    def terminate(self) -> None:
        """Interrupt the run; its process cleans up."""
        with suppress(OSError):  # it has ended
            self._connection.send_bytes(END)

    def join(self, seconds: float) -> None:
        """Wait for the process to end."""
        self._process.join(max(0.0, seconds))

    def kill(self) -> None:
        """End the process and all that it started."""
        if self._process.is_alive():  # else its number may be another process's
            system.kill_tree(self.pid)
        system.kill_session(self.pid)
        self._process.join(GRACE_SECONDS)
        self._disconnected = True
        self._connection.close()


def stop(children: Iterable[RunProcess], grace: float = GRACE_SECONDS) -> None:
    """End runs that are under way: ask, wait, kill. A second interrupt shortens the waiting."""
    children = list(children)
    deadline = time.monotonic() + grace
    try:
        for child in children:
            child.terminate()
        for child in children:
            child.join(deadline - time.monotonic())
    finally:
        for child in children:
            child.kill()


def failed_result(spec: RunSpec, error: str, seconds: float = 0.0, peak: int = 0) -> RunResult:
    """Return the result of a run whose process could not store one."""
    memory = {"peak": peak} if peak else {}
    return RunResult(spec, error=error, seconds={"total": round(seconds, 4)}, memory=memory)


def resident_memory(pid: int) -> int:
    """Return the resident memory of a process and all that it started, in bytes; shared pages count for each."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def log_tail(path: Path, count: int = LOG_LINES) -> list[str]:
    """Return the last non-empty lines of a log; after a crash in C, the lines around it."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 1000 * count))
            text = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    lines = [line.rstrip() for line in text if line.strip()]
    crash = next((i for i, line in enumerate(lines) if line.startswith("Fatal Python error")), None)
    if crash is None:
        return lines[-count:]
    first = max(0, crash - 3)  # the stack below that line begins with the last call
    return lines[first : first + count]
