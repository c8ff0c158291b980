"""A worker: takes jobs from a store's queue, grids and exports of models, and carries them out until it is stopped.

A thread sends heartbeats and progress. It also learns that the job shall stop, or that another worker has taken it
because this machine was asleep. Then it interrupts the job, as Ctrl-C would.
"""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from functools import partial
from statistics import fmean
from typing import Any, Self, TypeVar

from iadbe import system
from iadbe.errors import IadbeError, NoSpace
from iadbe.jobs import export_process, exports
from iadbe.jobs.export_process import ExportReporter
from iadbe.jobs.queue import Job, JobUpdate, Queue
from iadbe.progress import Report
from iadbe.running import plan, pool
from iadbe.running.executor import Event, GridMessage, GridPlanned, RunFinished, RunProgress, RunStarted
from iadbe.running.process import resident_memory
from iadbe.running.store import Store, folder_name
from iadbe.running.worker import EXECUTE, PRELOAD
from iadbe.seeds import run_id
from iadbe.types import Options, RunResult, RunSpec

POLL_SECONDS = 1.0  # between two looks into an empty queue
BEAT_SECONDS = 0.5  # between two heartbeats of a running job
MEMORY_SECONDS = 2.0  # between two measurements of a run's memory
LOSSES = 500  # of one run that are kept: then only every second of them, and so on
MAX_SKIPS = 50  # skipped cells that a job lists
RETRY_SECONDS = (0.5, 30.0)  # first and longest pause before a database that is away is tried again
RELEASE_SECONDS = 5.0  # for which a worker that is stopped tries to give its job back
Log = Callable[[str], Any]
Result = TypeVar("Result")


def serve(
    store: Store, url: str = "", *, jobs: int = 0, device: str = "", until_empty: bool = False, log: Log = print,
    function: str = EXECUTE, preload: tuple[str, ...] = PRELOAD,
) -> None:  # fmt: skip
    """Carry out jobs until Ctrl-C or SIGTERM. A job under way returns to the queue; its finished runs are kept.

    ``jobs`` and ``device`` win over what a job says, where they are given. ``until_empty`` ends with the last job.
    Call it in the main thread, for that is where interrupts arrive.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    with Queue(store, url) as queue, _interruptible():
        log(f"worker {name}: waits for jobs of {store.root}. Ctrl-C stops.")
        try:
            while True:
                job = retrying(partial(queue.take, name), log)
                if job is not None:
                    log(f"{job.id}: {job.title or 'started'}")
                    run_job(queue, job, store, jobs=jobs, device=device, log=log, function=function, preload=preload)
                    log(f"{job.id}: {_ending(retrying(partial(queue.get, job.id), log))}")
                elif until_empty:
                    return
                else:
                    time.sleep(POLL_SECONDS)
        except KeyboardInterrupt:
            log("stopping")


def run_job(
    queue: Queue, job: Job, store: Store, *, jobs: int = 0, device: str = "", log: Log = print,
    function: str = EXECUTE, preload: tuple[str, ...] = PRELOAD,
) -> None:  # fmt: skip
    """Carry out one job that was taken, in the main thread. A user's mistake ends the job, not the worker.

    Where the database is away, the end of the job is reported when it is back.
    """
    how = dict(job.how)
    at_a_time, retry = jobs or int(how.pop("jobs", 0)), bool(how.pop("retry_failed", False))
    known = {f.name for f in fields(Options)}
    how = {"images" if k == "pictures" else k: v for k, v in how.items()}  # jobs that version 0.1 was given
    options = Options(**{**{k: v for k, v in how.items() if k in known}, **({"device": device} if device else {})})
    reporter = ExportReporter() if exports.is_export(job.grid) else GridReporter()
    heartbeat = Heartbeat(queue, job, reporter, log)

    def end(state: str, error: str = "") -> None:
        retrying(partial(queue.end, job, state, error), log)

    try:
        with heartbeat:
            if isinstance(reporter, ExportReporter):
                export_process.carry_out(job.grid, store, options, reporter)
            else:
                planned = plan.expand(job.grid, store)
                reporter.plan(planned)
                pool.run_all(
                    planned.runs, store, options, jobs=at_a_time, retry_failed=retry, listener=reporter,
                    function=function, preload=preload,
                )  # fmt: skip
    except KeyboardInterrupt:
        if heartbeat.why == "stop":
            end("stopped")
        elif not heartbeat.why:
            _within_seconds(partial(queue.release, job), log)
            raise
    except (IadbeError, OSError) as error:
        end("failed", str(NoSpace.of(error) or error))
    except Exception as error:
        end("failed", f"this is a bug: {type(error).__name__}: {error}")
        raise
    else:
        end("done" if heartbeat.why != "stop" else "stopped")


def retrying(function: Callable[[], Result], log: Log, seconds: float = math.inf) -> Result:
    """Call a function of the queue again while the database is away, with growing pauses, for ``seconds`` at most."""
    from sqlalchemy.exc import DBAPIError

    began, (pause, longest) = time.monotonic(), RETRY_SECONDS
    is_reported = False
    while True:
        try:
            found = function()
        except DBAPIError as error:
            if time.monotonic() - began + pause > seconds:
                raise
            if not is_reported:
                log(f"the database is away ({str(error.orig).strip().splitlines()[0]}); waiting for it")
                is_reported = True
            time.sleep(pause)
            pause = min(2 * pause, longest)
        else:
            if is_reported:
                log("the database is back")
            return found


def _within_seconds(function: Callable[[], Any], log: Log) -> None:
    """Call a function of the queue; give up where the database stays away."""
    from sqlalchemy.exc import DBAPIError

    with suppress(DBAPIError):
        retrying(function, log, RELEASE_SECONDS)


class Heartbeat:
    """Sends heartbeats of a job from a thread; ``why`` says why it has interrupted the main thread."""

    def __init__(self, queue: Queue, job: Job, reporter: GridReporter | ExportReporter, log: Log = print) -> None:
        self.why = ""
        self._queue, self._job, self._reporter, self._log = queue, job, reporter, log
        self._pending: list[JobUpdate] = []  # not yet in the database, which may be away
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat_until_over, name=f"watch {job.id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.why == "" and kind is KeyboardInterrupt:  # the worker is stopped: others take the job when it is stale
            _within_seconds(self._send, self._log)
        elif self.why != "lost":
            retrying(self._send, self._log)

    def _beat_until_over(self) -> None:
        while not self._over.wait(BEAT_SECONDS):
            answer = self._beat()
            if answer and not self._over.is_set():
                self.why = answer
                system.interrupt_main()
                break
        while self.why == "stop" and not self._over.wait(BEAT_SECONDS):  # ending the runs takes a moment
            self._beat()

    def _beat(self) -> str:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            answer = self._send()
        except SQLAlchemyError:  # the database is away, for others too; when it is back it says whose job it is
            answer = ""
        return answer

    def _send(self) -> str:
        """Send a heartbeat with all updates that the database does not have yet."""
        updates = [*self._pending, *self._reporter.updates()]
        newest = {(u.run, u.latest): n for n, u in enumerate(updates) if u.latest}
        self._pending = [u for n, u in enumerate(updates) if not u.latest or newest[u.run, u.latest] == n]
        answer = self._queue.beat(self._job, self._pending, self._reporter.counts)
        self._pending = []
        return answer


class GridReporter:
    """A listener of :func:`iadbe.running.pool.run_all` that turns events into job updates, a few a second per run."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"done": 0, "failed": 0}
        self._lock = threading.Lock()
        self._updates: list[JobUpdate] = []
        self._latest: dict[tuple[str, str], JobUpdate] = {}
        self._losses: dict[str, _Losses] = {}
        self._pids: dict[str, int] = {}
        self._measured_at = 0.0

    def plan(self, planned: plan.Plan) -> None:
        """Report what will run and what is skipped."""
        skipped = [{"what": s.what, "reason": s.reason} for s in planned.skipped]
        body = {"runs": len(planned.runs), "skipped": len(skipped), "some": skipped[:MAX_SKIPS]}
        self._add(JobUpdate("plan", {**body, "notes": list(planned.notes)[:MAX_SKIPS]}))

    def __call__(self, event: Event) -> None:
        """Handle one event of the pool."""
        if isinstance(event, GridPlanned):
            self.counts |= {"total": event.total, "already": event.already}
            self._add(JobUpdate("planned", {"total": event.total, "already": event.already}))
        elif isinstance(event, GridMessage):
            self._add(JobUpdate("notice", {"text": event.text}))
        elif isinstance(event, RunStarted):
            run = run_id(event.spec)
            if not event.host:
                self._pids[run] = event.pid
            self._add(JobUpdate("started", {**_run_fields(event.spec), "pid": event.pid, "host": event.host}, run))
        elif isinstance(event, RunProgress):
            self._progress(run_id(event.spec), event.report)
        elif isinstance(event, RunFinished):
            self._finished(event)

    def updates(self) -> list[JobUpdate]:
        """Return the updates since the last call."""
        self._measure_memory()
        with self._lock:
            found, latest = self._updates, list(self._latest.values())
            self._updates, self._latest = [], {}
        return found + latest

    def _add(self, update: JobUpdate) -> None:
        with self._lock:
            self._updates.append(update)

    def _progress(self, run: str, report: Report) -> None:
        if report.phase == "loss":
            value = report.value
            if value is not None and math.isfinite(value):
                self._losses.setdefault(run, _Losses()).add(value, run, self._add)
            return
        body = {"phase": report.phase, "done": report.done, "total": report.total}
        with self._lock:
            self._latest[run, report.phase] = JobUpdate("progress", body, run, f"progress {report.phase}")

    def _finished(self, event: RunFinished) -> None:
        run, result = run_id(event.spec), event.result
        self.counts["failed" if result.error else "done"] += 1
        self._pids.pop(run, None)
        body = {
            **_run_fields(event.spec),
            "error": result.error,
            "seconds": event.seconds,
            "values": _values(result),
        }
        with self._lock:
            for key in [k for k in self._latest if k[0] == run]:  # else it would come after the end
                self._updates.append(self._latest.pop(key))
            self._updates.append(JobUpdate("finished", body, run))

    def _measure_memory(self) -> None:
        if time.monotonic() - self._measured_at < MEMORY_SECONDS:
            return
        self._measured_at = time.monotonic()
        for run, pid in list(self._pids.items()):
            if used := resident_memory(pid):
                with self._lock:
                    self._latest[run, "memory"] = JobUpdate("memory", {"bytes": used}, run, "memory")


class _Losses:
    """Thins out a run's losses evenly as they become many."""

    def __init__(self) -> None:
        self.count = 0
        self.every = 1
        self.kept = 0

    def add(self, value: float, run: str, send: Callable[[JobUpdate], Any]) -> None:
        self.count += 1
        if self.count % self.every == 0:
            send(JobUpdate("loss", {"value": value, "n": self.count}, run))
            self.kept += 1
            if self.kept % LOSSES == 0:
                self.every *= 2


def _run_fields(spec: RunSpec) -> dict[str, Any]:
    words = {name: getattr(spec, name) for name in ("detector", "dataset", "setting", "task", "seed", "protocol")}
    return {**words, "folder": folder_name(spec)}


def _values(result: RunResult) -> dict[str, float]:
    last = max((r.step for r in result.rows), default=0)
    found: dict[str, list[float]] = {}
    for row in result.rows:
        if row.step == last and math.isfinite(row.value):
            found.setdefault(row.metric, []).append(row.value)
    return {metric: fmean(values) for metric, values in found.items()}


def _ending(job: Job) -> str:
    runs = f"{job.done} runs done, {job.failed} failed, {job.already} were there"
    return f"{job.state}: {job.error or runs}".splitlines()[0]


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM end the worker as Ctrl-C does; and Ctrl-C, even where a shell has switched it off for us."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, *system.ENDING)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)
