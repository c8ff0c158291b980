"""Takes jobs from a store's queue and carries out their grids, until it is asked to go.

A thread gives signs of life and tells how far the runs are; it also hears that the job shall stop, or that it has gone
to somebody else because this machine was asleep, and interrupts the grid then, as Ctrl-C would.
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
from statistics import fmean
from typing import Any, Self

from iadbe.errors import IadbeError, NoSpace
from iadbe.jobs.queue import Job, News, Queue
from iadbe.progress import Report
from iadbe.running import plan, pool
from iadbe.running.executor import Event, Finished, Notice, Planned, Progress, Started
from iadbe.running.process import resident
from iadbe.running.store import Store, folder_name
from iadbe.running.worker import EXECUTE, PRELOAD
from iadbe.seeds import run_id
from iadbe.types import Options, RunResult, RunSpec

LOOK = 1.0  # seconds between two looks into an empty queue
TICK = 0.5  # seconds between two pieces of news of a running job
WEIGH = 2.0  # seconds between two looks at the memory of a run
LOSSES = 500  # of one run that are kept: then only every second of them, and so on
NAMED = 50  # skipped cells that a job tells one by one
Tell = Callable[[str], Any]


def serve(
    store: Store, url: str = "", *, jobs: int = 0, device: str = "", until_empty: bool = False, tell: Tell = print,
    function: str = EXECUTE, preload: tuple[str, ...] = PRELOAD,
) -> None:  # fmt: skip
    """Carry out jobs until Ctrl-C or SIGTERM; what is under way is given back, and loses no finished run.

    ``jobs`` and ``device`` win over what a job says, where they are given. ``until_empty`` ends with the last job.
    Call it in the main thread, for that is where interrupts arrive.
    """
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"
    with Queue(store, url) as queue, _terminable():
        tell(f"worker {name}: waits for jobs of {store.root}. Ctrl-C stops.")
        try:
            while True:
                job = queue.take(name)
                if job is not None:
                    tell(f"{job.id}: {job.title or 'started'}")
                    carry_out(queue, job, store, jobs=jobs, device=device, function=function, preload=preload)
                    tell(f"{job.id}: {_ending(queue.get(job.id))}")
                elif until_empty:
                    return
                else:
                    time.sleep(LOOK)
        except KeyboardInterrupt:
            tell("stopping")


def carry_out(
    queue: Queue, job: Job, store: Store, *, jobs: int = 0, device: str = "",
    function: str = EXECUTE, preload: tuple[str, ...] = PRELOAD,
) -> None:  # fmt: skip
    """Carry out one job that was taken, in the main thread. A user's mistake ends the job, not the worker."""
    how = dict(job.how)
    at_a_time, retry = jobs or int(how.pop("jobs", 0)), bool(how.pop("retry_failed", False))
    known = {f.name for f in fields(Options)}
    how = {"images" if k == "pictures" else k: v for k, v in how.items()}  # jobs that version 0.1 was given
    options = Options(**{**{k: v for k, v in how.items() if k in known}, **({"device": device} if device else {})})
    teller = Teller()
    watch = Watch(queue, job, teller)
    try:
        with watch:
            planned = plan.expand(job.grid)
            teller.plan(planned)
            pool.run_all(
                planned.runs, store, options, jobs=at_a_time, retry_failed=retry, listener=teller,
                function=function, preload=preload,
            )  # fmt: skip
    except KeyboardInterrupt:
        if watch.why == "stop":
            queue.end(job, "stopped")
        elif not watch.why:
            queue.release(job)
            raise
    except (IadbeError, OSError) as error:
        queue.end(job, "failed", str(NoSpace.of(error) or error))
    except Exception as error:
        queue.end(job, "failed", f"this is a bug: {type(error).__name__}: {error}")
        raise
    else:
        queue.end(job, "done" if watch.why != "stop" else "stopped")


class Watch:
    """Keeps a job ours while it is carried out, in a thread; ``why`` says for what it has interrupted the main one."""

    def __init__(self, queue: Queue, job: Job, teller: Teller) -> None:
        self.why = ""
        self._queue, self._job, self._teller = queue, job, teller
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch {job.id}", daemon=True)
        self._heard = time.monotonic()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        if self.why != "lost":
            self._beat()

    def _watch(self) -> None:
        while not self._over.wait(TICK):
            answer = self._beat()
            if answer and not self._over.is_set():
                self.why = answer
                os.kill(os.getpid(), signal.SIGINT)
                break
        while self.why == "stop" and not self._over.wait(TICK):  # the runs are being ended, which takes a moment
            self._beat()

    def _beat(self) -> str:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            answer = self._queue.beat(self._job, self._teller.news(), self._teller.counts)
        except SQLAlchemyError:  # the database is away: it may come back before anybody else takes the job
            return "lost" if time.monotonic() - self._heard > self._queue.stale else ""
        self._heard = time.monotonic()
        return answer


class Teller:
    """A listener of :func:`iadbe.running.pool.run_all` that turns reports into news, a few a second of each run."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {"done": 0, "failed": 0}
        self._lock = threading.Lock()
        self._news: list[News] = []
        self._latest: dict[tuple[str, str], News] = {}
        self._losses: dict[str, _Losses] = {}
        self._pids: dict[str, int] = {}
        self._weighed = 0.0

    def plan(self, planned: plan.Plan) -> None:
        """Tell what will run and what cannot."""
        skipped = [{"what": s.what, "reason": s.reason} for s in planned.skipped]
        body = {"runs": len(planned.runs), "skipped": len(skipped), "some": skipped[:NAMED]}
        self._add(News("plan", {**body, "notes": list(planned.notes)[:NAMED]}))

    def __call__(self, event: Event) -> None:
        """Take in one event of the pool."""
        if isinstance(event, Planned):
            self.counts |= {"total": event.total, "already": event.already}
            self._add(News("planned", {"total": event.total, "already": event.already}))
        elif isinstance(event, Notice):
            self._add(News("notice", {"text": event.text}))
        elif isinstance(event, Started):
            run = run_id(event.spec)
            if not event.host:
                self._pids[run] = event.pid
            self._add(News("started", {**_about(event.spec), "pid": event.pid, "host": event.host}, run))
        elif isinstance(event, Progress):
            self._progress(run_id(event.spec), event.report)
        elif isinstance(event, Finished):
            self._finished(event)

    def news(self) -> list[News]:
        """Return what there is to tell, once."""
        self._weigh()
        with self._lock:
            found, latest = self._news, list(self._latest.values())
            self._news, self._latest = [], {}
        return found + latest

    def _add(self, news: News) -> None:
        with self._lock:
            self._news.append(news)

    def _progress(self, run: str, report: Report) -> None:
        if report.phase == "loss":
            value = report.value
            if value is not None and math.isfinite(value):
                self._losses.setdefault(run, _Losses()).add(value, run, self._add)
            return
        body = {"phase": report.phase, "done": report.done, "total": report.total}
        with self._lock:
            self._latest[run, report.phase] = News("progress", body, run, f"progress {report.phase}")

    def _finished(self, event: Finished) -> None:
        run, result = run_id(event.spec), event.result
        self.counts["failed" if result.error else "done"] += 1
        self._pids.pop(run, None)
        body = {**_about(event.spec), "error": result.error, "seconds": event.seconds, "values": _values(result)}
        with self._lock:
            for key in [k for k in self._latest if k[0] == run]:  # else it would come after the end
                self._news.append(self._latest.pop(key))
            self._news.append(News("finished", body, run))

    def _weigh(self) -> None:
        if time.monotonic() - self._weighed < WEIGH:
            return
        self._weighed = time.monotonic()
        for run, pid in list(self._pids.items()):
            if used := resident(pid):
                with self._lock:
                    self._latest[run, "memory"] = News("memory", {"bytes": used}, run, "memory")


class _Losses:
    """Thins a run's losses out as they become many, evenly."""

    def __init__(self) -> None:
        self.count = 0
        self.every = 1
        self.told = 0

    def add(self, value: float, run: str, tell: Callable[[News], Any]) -> None:
        self.count += 1
        if self.count % self.every == 0:
            tell(News("loss", {"value": value, "n": self.count}, run))
            self.told += 1
            if self.told % LOSSES == 0:
                self.every *= 2


def _about(spec: RunSpec) -> dict[str, Any]:
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
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the worker as Ctrl-C does; and Ctrl-C, even where a shell has switched it off for us."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = {n: signal.signal(n, interrupt) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            with suppress(TypeError):  # one that was not set from Python
                signal.signal(number, handler)
