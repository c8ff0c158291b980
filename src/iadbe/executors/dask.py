"""Runs on many machines, through dask: a scheduler hands them out, workers carry them out.

The store is a folder that all machines see. Dask only schedules: a run whose worker dies goes to another one, and
a grid whose scheduler or client dies goes on with the next call, on this executor or any other.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import time
import uuid
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import wait
from queue import Empty, SimpleQueue
from typing import Any

from iadbe import __version__
from iadbe.errors import BadConfig, IadbeError, Missing
from iadbe.progress import Report
from iadbe.running.executor import Event, Executor, Finished, Lane, Notice, Progress, Started, lanes
from iadbe.running.process import LOOK, Child, failure, good, stop
from iadbe.running.worker import PRELOAD, Work, warm
from iadbe.seeds import run_id
from iadbe.types import Options, RunResult, RunSpec

try:
    import dask
    from distributed import Client, Future, KilledWorker, Nanny, Scheduler, SpecCluster, get_worker
    from distributed.comm import connect
except ImportError as absent:
    raise Missing("the executor dask is not installed. Bring it with: pip install 'iadbe[dask]'") from absent

PATIENCE = 10.0  # seconds for a scheduler to answer
NEWS = 1.0  # seconds between two reports of a run, and between two looks at who works
SHARING = 30.0  # seconds until a file that one machine writes must be seen by another


class Dask(Executor):
    """A scheduler of dask, at an address or made for the occasion with a worker process for each lane."""

    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs; closing the generator takes back what is under way."""
        with _quiet(), _client(self.work, self.jobs, self.scheduler) as client:
            grid = _Grid(client, self.work, self.scheduler)
            try:
                yield from grid.carry_out(specs)
            finally:
                grid.give_up()
        self.work.store.sweep()


class _Grid:
    """What one client has asked for, and what it hears of it."""

    def __init__(self, client: Client, work: Work, address: str) -> None:
        self.client = client
        self.work = work
        self.address = address  # "": the workers are ours, and as many as they should be
        self.name = f"iadbe-{uuid.uuid4().hex[:12]}"
        self.needs = {"GPU": 1} if address and work.options.device.startswith("cuda") else {}
        self.inbox: SimpleQueue[Future | dict[str, Any]] = SimpleQueue()
        self.asked: dict[str, tuple[Future, RunSpec]] = {}  # by key
        self.started: set[str] = set()
        self._looked, self._room = -NEWS, 0
        client.subscribe_topic(self.name, lambda event: self.inbox.put(event[1]))

    def carry_out(self, specs: Sequence[RunSpec]) -> Iterator[Event]:
        """Ask for as many runs as there is room for, so that a dying worker takes none down that only wait."""
        waiting = deque(specs)
        told = False
        while waiting or self.asked:
            room = self.room()
            if self.address and not room and not told:
                told = True
                yield Notice(self._nobody())
            while waiting and len(self.asked) < room:
                spec = waiting.popleft()
                if (found := good(self.work.store, spec)) is not None:  # another process was quicker
                    yield Finished(spec, found, 0.0)
                else:
                    self._ask(spec)
            with suppress(Empty):
                news = self.inbox.get(timeout=LOOK)
                yield from self._over(news) if isinstance(news, Future) else self._heard(news)

    def room(self) -> int:
        """Return how many runs the workers can carry out at a time, which changes as they come and go."""
        self._alive()
        if time.monotonic() - self._looked >= NEWS:
            try:
                workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            except (OSError, TimeoutError) as error:
                raise self._lost() from error
            fit = [w for w in workers if not self.needs or w["resources"].get("GPU")]
            self._room, self._looked = sum(w["nthreads"] for w in fit), time.monotonic()
        return self._room

    def _ask(self, spec: RunSpec) -> None:
        log = self.work.store.log(spec)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # a worker looks whether it sees it
        key = f"{self.name}-{run_id(spec)}"
        arguments = (spec, self.work, key, self.name, __version__)
        future = self.client.submit(attempt, *arguments, key=key, pure=False, resources=self.needs or None)
        self.asked[key] = (future, spec)
        future.add_done_callback(self.inbox.put)

    def _heard(self, news: dict[str, Any]) -> Iterator[Event]:
        """Pass on what a worker tells of a run; what comes after its end is dropped."""
        if (known := self.asked.get(news["key"])) is None:
            return
        if "report" in news:
            yield Progress(known[1], Report(*news["report"]))
        elif news["key"] not in self.started:  # not once more where a worker has died
            self.started.add(news["key"])
            yield Started(known[1], news["pid"], news["host"])

    def _over(self, future: Future) -> Iterator[Event]:
        """Tell the end of a run."""
        if (known := self.asked.pop(str(future.key), None)) is None:
            return
        spec = known[1]
        if future.status == "finished":
            try:
                result, seconds, pid, host = future.result()
            except (OSError, TimeoutError, asyncio.CancelledError) as error:
                raise self._lost() from error
            if future.key not in self.started and pid:  # the news of it is still on its way
                yield Started(spec, pid, host)
            yield Finished(spec, result, seconds)
        elif future.status == "error":
            yield Finished(spec, self._explained(spec, future.exception()), 0.0)
        else:
            raise self._lost()

    def _explained(self, spec: RunSpec, error: BaseException | None) -> RunResult:
        """Return the result of a run that killed its workers; other errors are the workers' and end the grid."""
        if isinstance(error, KilledWorker):
            times = error.allowed_failures + 1
            text = f"killed with its worker, {times} times: it may need more memory than these machines have"
            if (found := good(self.work.store, spec)) is None:
                self.work.store.save(found := failure(spec, text))
            return found
        if isinstance(error, IadbeError):
            raise error
        what = f"{type(error).__name__}: {error}"
        raise IadbeError(f"a worker cannot carry out runs ({what}). It needs the same iadbe, {__version__}.") from error

    def give_up(self) -> None:
        """Take back what is under way; the workers notice within a second."""
        if self.client.status == "running":
            with suppress(OSError, TimeoutError):
                self.client.unsubscribe_topic(self.name)
                self.client.cancel([future for future, _ in self.asked.values()], force=True)

    def _alive(self) -> None:
        if self.client.status != "running":
            raise self._lost()

    def _lost(self) -> IadbeError:
        kept = f"What is done is kept in {self.work.root}"
        return IadbeError(f"the scheduler at {self.address or 'home'} is gone. {kept}: repeat the command to go on.")

    def _nobody(self) -> str:
        what = "no worker with a GPU" if self.needs else "no worker"
        return f"{what} is connected to {self.address} yet. Start one on any machine: iadbe worker {self.address}"


def attempt(spec: RunSpec, work: Work, key: str, topic: str, version: str) -> tuple[RunResult, float, int, str]:
    """Carry out one run, in a worker: return (result, seconds, process, machine)."""
    worker = get_worker()
    host = socket.gethostname()
    _check(spec, work, version, host)
    if (found := good(work.store, spec)) is not None:
        return found, 0.0, 0, host
    threads = work.options.threads or int(os.environ.get("OMP_NUM_THREADS") or 1)
    child = Child(spec, replace(work, options=replace(work.options, threads=threads)))
    worker.log_event(topic, {"key": key, "pid": child.pid, "host": host})
    _say(f"{run_id(spec)} {spec.detector} on {spec.task}: started")
    told: dict[str, float] = {}
    try:
        while child.result is None:
            wait(child.waits, LOOK)
            for report in child.look():
                if child.seconds - told.get(report.phase, -NEWS) >= NEWS:
                    told[report.phase] = child.seconds
                    worker.log_event(topic, {"key": key, "report": list(report)})
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled" or worker.status.name not in ("running", "paused"):
                raise IadbeError("this run was taken back.")
    finally:
        if child.result is None:
            stop([child])
            work.store.sweep()
        _say(f"{run_id(spec)} {spec.detector}: {child.result.error or 'done' if child.result else 'taken back'}")
    return child.result, child.seconds, child.pid, host


def _check(spec: RunSpec, work: Work, version: str, host: str) -> None:
    """Make sure that this worker is fit for the run."""
    if version != __version__:
        raise BadConfig(f"the worker on {host} has iadbe {__version__}, but {version} asks. Install the same.")
    log, deadline = work.store.log(spec), time.monotonic() + SHARING
    while not log.exists():
        if time.monotonic() > deadline:
            raise BadConfig(f"the worker on {host} does not see {work.root}. Give a folder that all machines share.")
        time.sleep(LOOK)


def _say(text: str) -> None:
    if dask.config.get("iadbe.aloud", False):
        print(time.strftime("%H:%M:%S"), text.partition("\n")[0], flush=True)


@contextmanager
def _client(work: Work, jobs: int, address: str) -> Iterator[Client]:
    """Connect to the scheduler at an address; without one, start a scheduler and workers for as long as needed."""
    if address:
        try:
            client = Client(address, timeout=PATIENCE, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise _no_answer(address) from error
        with client:
            yield client
        return
    shares = lanes(work.options, jobs, work.preload)
    nannies = {i: {"cls": Nanny, "options": _nanny(lane, work.preload)} for i, lane in enumerate(shares)}
    private = {"host": "127.0.0.1", "port": 0, "dashboard": False, "dashboard_address": "127.0.0.1:0"}
    with (
        SpecCluster(
            nannies,
            {"cls": Scheduler, "options": private},
            silence_logs=logging.CRITICAL,
            name=f"iadbe-{uuid.uuid4().hex[:8]}",
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client


def _no_answer(address: str) -> BadConfig:
    return BadConfig(f"no dask scheduler answers at {address}. Start one with `dask scheduler`; it prints its address.")


def _nanny(lane: Lane, preload: Sequence[str], aloud: bool = False) -> dict[str, Any]:
    """Return how a worker for one lane is started: one run at a time, its GPU announced as a resource."""
    return {
        "nthreads": 1,
        "memory_limit": 0,  # runs have limits of their own
        "dashboard": False,
        "env": lane.environment,
        "resources": {"GPU": 1} if lane.gpu else {},
        "preload": [__name__],  # dask_setup, below
        "config": {"iadbe.aloud": aloud, "iadbe.preload": list(preload)},
        "silence_logs": logging.WARNING if aloud else logging.CRITICAL,
    }


def dask_setup(worker: Any) -> None:
    """Prepare a worker's process; dask calls this in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is for the process that started it
    warm(dask.config.get("iadbe.preload", PRELOAD))


@contextmanager
def _quiet() -> Iterator[None]:
    """Let dask's log be silent: what matters of it is said in events and errors."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("distributed")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def serve(
    address: str,
    jobs: int = 0,
    device: str = "auto",
    tell: Callable[[str], Any] = print,
    preload: Sequence[str] = PRELOAD,
) -> None:
    """Carry out runs for the scheduler at ``address`` until Ctrl-C or SIGTERM.

    There is a worker for each GPU, which announces it as the resource ``GPU``, or one for every four cores.
    Raises :class:`BadConfig` where no scheduler answers, and :class:`IadbeError` when it goes away.
    """
    shares = lanes(Options(device=device), jobs, preload)
    with _quiet():
        asyncio.run(_serve(address, shares, tell, preload))


async def _serve(address: str, shares: Sequence[Lane], tell: Callable[[str], Any], preload: Sequence[str]) -> None:
    try:
        await (await connect(address, timeout=PATIENCE)).close()
    except (OSError, TimeoutError, ValueError) as error:
        raise _no_answer(address) from error
    asked = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asked.set)
    nannies: list[Nanny] = []
    try:
        for lane in shares:
            nannies.append(await Nanny(address, **_nanny(lane, preload, aloud=True)))
            gpu = f"GPU {lane.gpu}, " if lane.gpu else ""
            tell(f"worker {nannies[-1].worker_address}: {gpu}{lane.threads} threads, for the scheduler at {address}")
        tell("Ctrl-C stops.")
        ends = [asyncio.create_task(end) for end in (asked.wait(), *(nanny.finished() for nanny in nannies))]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tell("stopping")
        await asyncio.gather(*(nanny.close(timeout=PATIENCE) for nanny in nannies), return_exceptions=True)
    if not asked.is_set():
        raise IadbeError(f"the scheduler at {address} is gone.")
