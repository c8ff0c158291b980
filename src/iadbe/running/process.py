"""A run's process, seen from the process that started it: what it says, which limit it breaks, how it ended.

What crashes, hangs or eats the memory ends that process and nothing else: it becomes the run's result, with an error.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from iadbe.errors import BadData, NoSpace
from iadbe.progress import Report
from iadbe.running.store import Store
from iadbe.running.worker import ASKED_TO_STOP, Work, live, start
from iadbe.types import RunResult, RunSpec

LOOK = 0.25  # seconds between two looks at a run's limits
GRACE = 3.0  # seconds that an interrupted run has to tidy up
TAIL = 12  # lines of the log that explain a crash
SERVER_DIED = 255  # an exit code, as multiprocessing says it


def good(store: Store, spec: RunSpec) -> RunResult | None:
    """Return what the store holds of a run that went well, or None."""
    if store.has(spec):
        with suppress(BadData):  # damaged, or another process is replacing it
            result = store.load(store.path(spec).name)
            return None if result.error else result
    return None


class Child:
    """The process of one run, seen from the process that started it.

    Call :meth:`look` until ``result`` is there; :func:`stop` ends it before its time.
    """

    def __init__(self, spec: RunSpec, work: Work, environment: Mapping[str, str] | None = None) -> None:
        self.spec = spec
        self.work = work
        self.result: RunResult | None = None
        self.peak = 0  # bytes of resident memory, where there is a limit
        self._checked = 0.0
        self._mute = False
        self._connection, theirs = multiprocessing.Pipe()
        surroundings = {**os.environ, **(environment or {})}
        self._process = start(live, (theirs, spec, work, surroundings), work.preload, f"iadbe {spec.detector}")
        theirs.close()
        self.started = time.monotonic()
        self.pid: int = self._process.pid or 0

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    @property
    def waits(self) -> list[Any]:
        """What :func:`multiprocessing.connection.wait` can wait for: a message, or the end."""
        return [self._process.sentinel] if self._mute else [self._process.sentinel, self._connection]

    def look(self) -> Iterator[Report]:
        """Yield what the run has said since the last look, and end it if it breaks a limit."""
        ended = not self._process.is_alive()  # asked first: what it said before it ended is read below
        last: tuple[RunResult | None, str | NoSpace] | None = None
        try:
            while last is None and not self._mute and self._connection.poll():
                message = self._connection.recv()
                if isinstance(message, Report):
                    yield message
                else:
                    last = message
        except (EOFError, OSError):  # it has closed its end, or died in the middle of a word
            self._mute = True
        except Exception as error:
            last = (None, f"its result cannot be read: {type(error).__name__}: {error}")
        if last is not None:
            self._over(*last)
        elif ended:
            self._fail(self._crash())
        elif broken := self._broken_limit():
            self._fail(broken)

    def _over(self, result: RunResult | None, error: str | NoSpace) -> None:
        """Take what the process said last; it has saved the result itself."""
        self._process.join(GRACE)
        self.kill()
        if isinstance(error, NoSpace):
            raise error
        self.result = result
        if result is None:
            self._fail(error)

    def _fail(self, error: str) -> None:
        """Make the error the run's result, unless it had saved a good one before it came to grief."""
        self.kill()
        if (found := good(self.work.store, self.spec)) is not None:
            self.result = found
            return
        self.result = failure(self.spec, error, self.seconds, self.peak)
        self.work.store.save(self.result)
        self.work.store.sweep()

    def _broken_limit(self) -> str:
        options = self.work.options
        if options.time_limit is not None and self.seconds > options.time_limit:
            return f"stopped after {self.seconds:.0f} s: time limit {options.time_limit:g} s"
        if options.memory_limit is not None and time.monotonic() - self._checked >= LOOK:
            self._checked = time.monotonic()
            used = resident(self.pid)
            self.peak = max(self.peak, used)
            if used > options.memory_limit:
                return f"killed at {in_bytes(used)}: memory limit {in_bytes(options.memory_limit)}"
        return ""

    def _crash(self) -> str:
        """Say how the process ended, with the last lines of its log."""
        code = self._process.exitcode
        if code in (ASKED_TO_STOP, SERVER_DIED):
            time.sleep(LOOK)  # who stops a whole job signals us as well: then this is an interrupt and not a failure
        how = how_it_ended(code)
        lines = last_lines(self.work.store.log(self.spec))
        return "\n".join([how, *(f"    {line}" for line in lines)])

    def ask_to_stop(self) -> None:
        """Interrupt the run; it tidies up by itself."""
        self._process.terminate()

    def join(self, seconds: float) -> None:
        """Wait for the process to end."""
        self._process.join(max(0.0, seconds))

    def kill(self) -> None:
        """End the process and all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.kill()  # where it has not come as far as to have a session of its own
        self._process.join(GRACE)
        self._mute = True
        self._connection.close()


def stop(children: Iterable[Child], grace: float = GRACE) -> None:
    """End runs that are under way: ask, wait, kill. A second interrupt shortens the waiting."""
    children = list(children)
    deadline = time.monotonic() + grace
    try:
        for child in children:
            child.ask_to_stop()
        for child in children:
            child.join(deadline - time.monotonic())
    finally:
        for child in children:
            child.kill()


def failure(spec: RunSpec, error: str, seconds: float = 0.0, peak: int = 0) -> RunResult:
    """Return the result of a run that could not speak for itself any more."""
    memory = {"peak": peak} if peak else {}
    return RunResult(spec, error=error, seconds={"total": round(seconds, 4)}, memory=memory)


def resident(pid: int) -> int:
    """Return the resident memory of a process and all that it started, in bytes; shared pages count for each."""
    total = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for member in (process, *process.children(recursive=True)):
            with suppress(psutil.Error):
                total += member.memory_info().rss
    return total


def in_bytes(count: int) -> str:
    """Write bytes for people: ``4.1 GB``, ``300 MB``."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def how_it_ended(code: int | None) -> str:
    """Say what an exit code of a process that left no result means."""
    if code == -signal.SIGKILL:
        return "killed by signal 9: probably the system ran out of memory"
    if code is None or code >= 0:
        return f"crashed: its process ended with exit code {code} and without a result"
    known = {int(s): s.name for s in signal.Signals}
    return f"crashed: killed by signal {-code} ({known.get(-code, 'a real-time signal')})"


def last_lines(path: Path, count: int = TAIL) -> list[str]:
    """Return the last lines of a log that say something; of a crash in C, where it happened."""
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
