"""Carries out one export job in a process of its own, with its limits of time and memory.

A detector that crashes the converter, or takes too much memory, ends that process only.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from iadbe import progress, registry, system
from iadbe.errors import BadConfig, IadbeError, Missing, NoSpace
from iadbe.exporting import ENDINGS, STEPS
from iadbe.files.byte_sizes import format_bytes
from iadbe.jobs import exports
from iadbe.jobs.exports import ExportRequest, StoredExport
from iadbe.jobs.queue import JobUpdate
from iadbe.progress import Report
from iadbe.running.process import GRACE_SECONDS, POLL_SECONDS, log_tail, resident_memory
from iadbe.running.store import Store
from iadbe.running.worker import call_and_exit, start
from iadbe.running.worker import function as function_of
from iadbe.types import Options, RunSpec

PRELOAD = ("torch", "timm", "iadbe.api")
EXPORT = "iadbe.jobs.export_process:export"
MEMORY_SECONDS = 2.0  # between two measurements of the memory that are shown


class ExportReporter:
    """Turns the progress of an export into job updates. The export is shown as the one run of the job."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"total": 1, "already": 0, "done": 0, "failed": 0}
        self._run, self._about = "", {"folder": ""}
        self._lock = threading.Lock()
        self._updates = [JobUpdate("planned", {"total": 1, "already": 0})]
        self._latest: dict[str, JobUpdate] = {}

    def updates(self) -> list[JobUpdate]:
        """Return the updates since the last call."""
        with self._lock:
            found, latest = self._updates, list(self._latest.values())
            self._updates, self._latest = [], {}
        return found + latest

    def started(self, run: str, spec: RunSpec, pid: int) -> None:
        """Say that the process runs, and of which run it exports the model."""
        words = {name: getattr(spec, name) for name in ("detector", "dataset", "setting", "task", "seed", "protocol")}
        with self._lock:
            self._run, self._about = run, {**words, "folder": ""}
            self._updates.append(JobUpdate("started", {**self._about, "pid": pid, "host": ""}, self._run))

    def progress(self, report: Report) -> None:
        """Say which step is under way."""
        body = {"phase": report.phase, "done": report.done, "total": report.total}
        with self._lock:
            self._latest[report.phase] = JobUpdate("progress", body, self._run, f"progress {report.phase}")

    def memory(self, used: int) -> None:
        """Say how much memory the process has."""
        with self._lock:
            self._latest["memory"] = JobUpdate("memory", {"bytes": used}, self._run, "memory")

    def finished(self, seconds: float, error: str = "") -> None:
        """Say how it has ended."""
        body = {**self._about, "error": error, "seconds": round(seconds, 2), "values": {}}
        with self._lock:
            self._updates += [*self._latest.values(), JobUpdate("finished", body, self._run)]
            self._latest = {}
            self.counts["failed" if error else "done"] = 1


def carry_out(
    grid: Mapping[str, Any], store: Store, options: Options, reporter: ExportReporter,
    function: str = EXPORT, preload: tuple[str, ...] = PRELOAD,
) -> None:  # fmt: skip
    """Export what a job says in a process of its own, and wait for it.

    Raises :class:`iadbe.errors.IadbeError` where that fails. An interrupt ends the process; nothing half written stays.
    """
    request = exports.request_of(grid)
    spec = store.load(store.find(request.run).name).spec
    connection, theirs = multiprocessing.Pipe()
    log = log_of(store, request)
    given = (theirs, request, store.root, options, function, registry.trusted(), dict(os.environ))
    process = start(process_main, given, preload, f"iadbe export {request.name}")
    theirs.close()
    began = time.monotonic()
    reporter.started(request.run, spec, process.pid or 0)
    error: str | NoSpace = "interrupted"
    try:
        error = _outcome(connection, process, options, reporter, log)
    finally:
        if process.is_alive():
            system.kill_tree(process.pid)
        system.kill_session(process.pid)
        process.join(GRACE_SECONDS)
        connection.close()
        store.sweep()
        with suppress(OSError):
            system.remove(log)
        reporter.finished(time.monotonic() - began, str(error))
    if isinstance(error, NoSpace):
        raise error
    if error:
        raise IadbeError(error)


def log_of(store: Store, request: ExportRequest) -> Path:
    """Return the file that the process writes its output to, which explains a crash."""
    return store.root / ".logs" / f"export-{request.run}-{request.name}.log"


def _outcome(
    connection: Connection, process: Any, options: Options, reporter: ExportReporter, log: Path
) -> str | NoSpace:
    """Return the error with which the process ends, empty without one; it is ended where it exceeds a limit."""
    began, measured = time.monotonic(), 0.0
    while True:
        ended = not process.is_alive()  # checked first: its last messages are read below
        try:
            while connection.poll():
                message = connection.recv()
                if not isinstance(message, Report):
                    process.join(GRACE_SECONDS)
                    error: str | NoSpace = message[1]
                    return error
                reporter.progress(message)
        except (EOFError, OSError):
            ended = True
        if ended:
            process.join(GRACE_SECONDS)
            return "\n".join([system.crash_text(process.exitcode), *(f"    {line}" for line in log_tail(log))])
        seconds = time.monotonic() - began
        if options.time_limit is not None and seconds > options.time_limit:
            return f"stopped after {seconds:.0f} s: time limit {options.time_limit:g} s"
        if options.memory_limit is not None or time.monotonic() - measured > MEMORY_SECONDS:
            measured, used = time.monotonic(), resident_memory(process.pid)
            reporter.memory(used)
            if options.memory_limit is not None and used > options.memory_limit:
                return f"killed at {format_bytes(used)}: memory limit {format_bytes(options.memory_limit)}"
        wait([connection, process.sentinel], POLL_SECONDS)


# ---- inside the process ----------------------------------------------------------------------------------------------


def process_main(
    connection: Connection, request: ExportRequest, root: Path, options: Options, function: str,
    trusted: tuple[str, ...], environment: Mapping[str, str],
) -> None:  # fmt: skip
    """Main function of the process."""

    def call() -> tuple[None, str | NoSpace]:
        return None, _error_of(partial(function_of(function), request, Store(root), options))

    call_and_exit(connection, log_of(Store(root), request), options.threads, trusted, environment, call)


def _error_of(call: Callable[[], None]) -> str | NoSpace:
    """Call a function; return its error, as a sentence where it is a user's mistake."""
    try:
        call()
    except NoSpace as error:
        return error
    except IadbeError as error:
        return str(error)
    except Exception as error:
        traceback.print_exc()
        return NoSpace.of(error) or f"this is a bug: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ""


def export(request: ExportRequest, store: Store, options: Options) -> None:
    """Export a run's model into the run's folder, whole or not at all."""
    from iadbe import api

    progress.report("load", 0, STEPS)
    folder = store.find(request.run)
    model = folder / "model"
    if not (model / exports.CARD).is_file():
        raise BadConfig(f"the run {request.run} has no stored model.")
    digest = exports.digest_of(model)
    fitted = api.load(model, options.device if options.device != "auto" else "cpu")
    staging = store.staging(store.load(folder.name).spec)
    try:
        inside = staging if request.to != exports.WEB else staging / "page"
        target = inside if request.to == exports.WEB else inside / f"{fitted.name}{ENDINGS[request.to]}"
        made = api.export(fitted, target, to=request.to, precision=request.precision, allow=request.allow)
        parity = made.parity
        stored = StoredExport(
            request.to, request.precision, made.file.name, _bytes(staging),
            datetime.now(UTC).isoformat(timespec="seconds"), "" if parity is None else str(parity),
            None if parity is None else parity.holds, request.allow, digest,
        )  # fmt: skip
        exports.describe(staging, stored)
        _put(store, folder, staging, request)
    finally:
        system.remove_tree(staging)
    progress.report("store", STEPS, STEPS)


def _put(store: Store, folder: Path, staging: Path, request: ExportRequest) -> None:
    """Move the files into the run's folder, unless the run has been removed meanwhile."""
    if not (folder / "model" / exports.CARD).is_file():
        raise Missing(f"the run {request.run} has been removed meanwhile.")
    (folder / exports.FOLDER).mkdir(exist_ok=True)
    store.put(staging, folder / exports.FOLDER / request.name)


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
