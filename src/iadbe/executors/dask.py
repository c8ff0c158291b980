"""Runs on many machines through Dask: a scheduler distributes them to workers.

The store is a folder that all machines share. A run whose worker dies is given to another worker. A grid whose
scheduler or client dies is resumed by the next call, on this executor or another.
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

from iadbe import __version__, system
from iadbe.errors import BadConfig, IadbeError, Missing
from iadbe.progress import Report
from iadbe.running.executor import Event, Executor, GridMessage, RunFinished, RunProgress, RunStarted, Slot, slots
from iadbe.running.process import POLL_SECONDS, RunProcess, completed_result, failed_result, stop
from iadbe.running.worker import PRELOAD, RunContext, start_fork_server
from iadbe.seeds import run_id
from iadbe.types import Options, RunResult, RunSpec

try:
    import dask
    from distributed import Client, Future, KilledWorker, Nanny, Scheduler, SpecCluster, get_worker
    from distributed.comm import connect
except ImportError as absent:
    raise Missing("the executor dask is not installed. Install it with: pip install 'iadbe[dask]'") from absent

CONNECT_TIMEOUT = 10.0  # seconds for a scheduler to answer
REPORT_SECONDS = 1.0  # between two reports of a run, and between two counts of the workers
FILE_TIMEOUT = 30.0  # seconds until a file that one machine writes must be seen by another


class Dask(Executor):
    """A scheduler of dask, at an address or started for this grid with a worker process for each slot."""

    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs; closing the generator cancels those under way."""
        with _dask_logs_off(), _client(self.context, self.jobs, self.scheduler) as client:
            grid = _Grid(client, self.context, self.scheduler)
            try:
                yield from grid.run_specs(specs)
            finally:
                grid.cancel_runs()
        self.context.store.sweep()


class _Grid:
    """The runs that one client has submitted, and their events."""

    def __init__(self, client: Client, context: RunContext, address: str) -> None:
        self.client = client
        self.context = context
        self.address = address  # "": the cluster is our own
        self.name = f"iadbe-{uuid.uuid4().hex[:12]}"
        self.needs = {"GPU": 1} if address and context.options.device.startswith("cuda") else {}
        self.inbox: SimpleQueue[Future | dict[str, Any]] = SimpleQueue()
        self.submitted: dict[str, tuple[Future, RunSpec]] = {}  # by key
        self.started: set[str] = set()
        self._counted_at, self._free = -REPORT_SECONDS, 0
        client.subscribe_topic(self.name, lambda event: self.inbox.put(event[1]))

    def run_specs(self, specs: Sequence[RunSpec]) -> Iterator[Event]:
        """Submit as many runs as there are free slots, so that a dying worker takes no waiting run with it."""
        waiting = deque(specs)
        reported = False
        while waiting or self.submitted:
            free = self.free_slots()
            if self.address and not free and not reported:
                reported = True
                yield GridMessage(self._no_worker())
            while waiting and len(self.submitted) < free:
                spec = waiting.popleft()
                if (found := completed_result(self.context.store, spec)) is not None:  # another process was quicker
                    yield RunFinished(spec, found, 0.0)
                else:
                    self._submit(spec)
            with suppress(Empty):
                item = self.inbox.get(timeout=POLL_SECONDS)
                yield from self._handle_end(item) if isinstance(item, Future) else self._handle_event(item)

    def free_slots(self) -> int:
        """Return how many runs the workers can carry out at a time; workers may come and go."""
        self._alive()
        if time.monotonic() - self._counted_at >= REPORT_SECONDS:
            try:
                workers = self.client.scheduler_info(n_workers=-1)["workers"].values()
            except (OSError, TimeoutError) as error:
                raise self._scheduler_gone() from error
            fit = [w for w in workers if not self.needs or w["resources"].get("GPU")]
            self._slot_count, self._counted_at = sum(w["nthreads"] for w in fit), time.monotonic()
        return self._slot_count

    def _submit(self, spec: RunSpec) -> None:
        log = self.context.store.log(spec)
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # a worker checks that it sees this file
        key = f"{self.name}-{run_id(spec)}"
        arguments = (spec, self.context, key, self.name, __version__)
        future = self.client.submit(attempt, *arguments, key=key, pure=False, resources=self.needs or None)
        self.submitted[key] = (future, spec)
        future.add_done_callback(self.inbox.put)

    def _handle_event(self, event: dict[str, Any]) -> Iterator[Event]:
        """Yield a worker's event of a run; events after its end are dropped."""
        if (known := self.submitted.get(event["key"])) is None:
            return
        if "report" in event:
            yield RunProgress(known[1], Report(*event["report"]))
        elif event["key"] not in self.started:  # not once more where a worker has died
            self.started.add(event["key"])
            yield RunStarted(known[1], event["pid"], event["host"])

    def _handle_end(self, future: Future) -> Iterator[Event]:
        """Yield the end of a run."""
        if (known := self.submitted.pop(str(future.key), None)) is None:
            return
        spec = known[1]
        if future.status == "finished":
            try:
                result, seconds, pid, host = future.result()
            except (OSError, TimeoutError, asyncio.CancelledError) as error:
                raise self._scheduler_gone() from error
            if future.key not in self.started and pid:  # its event is still on its way
                yield RunStarted(spec, pid, host)
            yield RunFinished(spec, result, seconds)
        elif future.status == "error":
            yield RunFinished(spec, self._result_of_error(spec, future.exception()), 0.0)
        else:
            raise self._scheduler_gone()

    def _result_of_error(self, spec: RunSpec, error: BaseException | None) -> RunResult:
        """Return the result of a run that killed its workers; other errors of a worker end the grid."""
        if isinstance(error, KilledWorker):
            times = error.allowed_failures + 1
            text = f"killed with its worker, {times} times: it may need more memory than these machines have"
            if (found := completed_result(self.context.store, spec)) is None:
                self.context.store.save(found := failed_result(spec, text))
            return found
        if isinstance(error, IadbeError):
            raise error
        what = f"{type(error).__name__}: {error}"
        raise IadbeError(f"a worker cannot carry out runs ({what}). It needs the same iadbe, {__version__}.") from error

    def cancel_runs(self) -> None:
        """Cancel the runs under way; the workers notice within a second."""
        if self.client.status == "running":
            with suppress(OSError, TimeoutError):
                self.client.unsubscribe_topic(self.name)
                self.client.cancel([future for future, _ in self.submitted.values()], force=True)

    def _alive(self) -> None:
        if self.client.status != "running":
            raise self._scheduler_gone()

    def _scheduler_gone(self) -> IadbeError:
        kept = f"What is done is kept in {self.context.root}"
        return IadbeError(f"the scheduler at {self.address or 'home'} is gone. {kept}: repeat the command to go on.")

    def _no_worker(self) -> str:
        what = "no worker with a GPU" if self.needs else "no worker"
        return f"{what} is connected to {self.address} yet. Start one on any machine: iadbe worker {self.address}"


def attempt(
    spec: RunSpec, context: RunContext, key: str, topic: str, version: str
) -> tuple[RunResult, float, int, str]:
    """Carry out one run, in a worker: return (result, seconds, process, machine)."""
    worker = get_worker()
    host = socket.gethostname()
    _check_worker(spec, context, version, host)
    if (found := completed_result(context.store, spec)) is not None:
        return found, 0.0, 0, host
    threads = context.options.threads or int(os.environ.get("OMP_NUM_THREADS") or 1)
    child = RunProcess(spec, replace(context, options=replace(context.options, threads=threads)))
    worker.log_event(topic, {"key": key, "pid": child.pid, "host": host})
    _log(f"{run_id(spec)} {spec.detector} on {spec.task}: started")
    last_sent: dict[str, float] = {}
    try:
        while child.result is None:
            wait(child.wait_handles, POLL_SECONDS)
            for report in child.poll():
                if child.seconds - last_sent.get(report.phase, -REPORT_SECONDS) >= REPORT_SECONDS:
                    last_sent[report.phase] = child.seconds
                    worker.log_event(topic, {"key": key, "report": list(report)})
            task = worker.state.tasks.get(key)
            if task is None or task.state == "cancelled" or worker.status.name not in ("running", "paused"):
                raise IadbeError("this run was cancelled.")
    finally:
        if child.result is None:
            stop([child])
            context.store.sweep()
        _log(f"{run_id(spec)} {spec.detector}: {child.result.error or 'done' if child.result else 'cancelled'}")
    return child.result, child.seconds, child.pid, host


def _check_worker(spec: RunSpec, context: RunContext, version: str, host: str) -> None:
    """Make sure that this worker is fit for the run."""
    if version != __version__:
        raise BadConfig(f"the worker on {host} has iadbe {__version__}, the client {version}. Install the same.")
    log, deadline = context.store.log(spec), time.monotonic() + FILE_TIMEOUT
    while not log.exists():
        if time.monotonic() > deadline:
            raise BadConfig(f"the worker on {host} does not see {context.root}. Give a folder that all machines share.")
        time.sleep(POLL_SECONDS)


def _log(text: str) -> None:
    if dask.config.get("iadbe.verbose", False):
        print(time.strftime("%H:%M:%S"), text.partition("\n")[0], flush=True)


@contextmanager
def _client(context: RunContext, jobs: int, address: str) -> Iterator[Client]:
    """Connect to the scheduler at an address; without one, start a scheduler and workers for as long as needed."""
    if address:
        try:
            client = Client(address, timeout=CONNECT_TIMEOUT, set_as_default=False)
        except (OSError, TimeoutError, ValueError) as error:
            raise _no_answer(address) from error
        with client:
            yield client
        return
    shares = slots(context.options, jobs, context.preload)
    nannies = {i: {"cls": Nanny, "options": _nanny(slot, context.preload)} for i, slot in enumerate(shares)}
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


def _nanny(slot: Slot, preload: Sequence[str], verbose: bool = False) -> dict[str, Any]:
    """Return how a worker for one slot is started: one run at a time, its GPU announced as a resource."""
    return {
        "nthreads": 1,
        "memory_limit": 0,  # runs have limits of their own
        "dashboard": False,
        "env": slot.environment,
        "resources": {"GPU": 1} if slot.gpu else {},
        "preload": [__name__],  # dask_setup, below
        "config": {"iadbe.verbose": verbose, "iadbe.preload": list(preload)},
        "silence_logs": logging.WARNING if verbose else logging.CRITICAL,
    }


def dask_setup(worker: Any) -> None:
    """Prepare a worker's process; dask calls this in it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the terminal is handled by the parent
    start_fork_server(dask.config.get("iadbe.preload", PRELOAD))


@contextmanager
def _dask_logs_off() -> Iterator[None]:
    """Silence Dask's log: events and errors hold what matters."""
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
    log: Callable[[str], Any] = print,
    preload: Sequence[str] = PRELOAD,
) -> None:
    """Carry out runs for the scheduler at ``address`` until Ctrl-C or SIGTERM.

    There is a worker for each GPU, which announces it as the resource ``GPU``, or one for every four cores.
    Raises :class:`BadConfig` where no scheduler answers, and :class:`IadbeError` when it goes away.
    """
    shares = slots(Options(device=device), jobs, preload)
    with _dask_logs_off():
        asyncio.run(_serve(address, shares, log, preload))


async def _serve(address: str, shares: Sequence[Slot], log: Callable[[str], Any], preload: Sequence[str]) -> None:
    try:
        await (await connect(address, timeout=CONNECT_TIMEOUT)).close()
    except (OSError, TimeoutError, ValueError) as error:
        raise _no_answer(address) from error
    submitted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, *system.ENDING):  # not loop.add_signal_handler, which Windows lacks
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(submitted.set))
    nannies: list[Nanny] = []
    try:
        for slot in shares:
            nannies.append(await Nanny(address, **_nanny(slot, preload, verbose=True)))
            gpu = f"GPU {slot.gpu}, " if slot.gpu else ""
            log(f"worker {nannies[-1].worker_address}: {gpu}{slot.threads} threads, for the scheduler at {address}")
        log("Ctrl-C stops.")
        ends = [asyncio.create_task(end) for end in (submitted.wait(), *(nanny.finished() for nanny in nannies))]
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        log("stopping")
        await asyncio.gather(*(nanny.close(timeout=CONNECT_TIMEOUT) for nanny in nannies), return_exceptions=True)
    if not submitted.is_set():
        raise IadbeError(f"the scheduler at {address} is gone.")
