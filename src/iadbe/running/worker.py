"""What a run's process does: it writes its own log, keeps to its threads, says how far it is, and dies with its parent.

It is forked from a server that has torch imported already, so that a short run costs no start-up.
"""

from __future__ import annotations

import ctypes
import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from pathlib import Path
from select import select
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from iadbe import progress
from iadbe.errors import IadbeError, NoSpace
from iadbe.progress import Report
from iadbe.running.store import Store
from iadbe.types import Options, RunResult, RunSpec

EXECUTE = "iadbe.running.run:execute"
PRELOAD = ("torch", "timm", "iadbe.running.run")
EVERY = 0.1  # seconds between two reports of one phase
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
PR_SET_PDEATHSIG = 1  # of Linux's prctl
ASKED_TO_STOP = 128 + signal.SIGTERM  # a run's exit code after it tidied up
KEPT_FROM_SERVER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # it ends with its parent, not before


@dataclass(frozen=True, slots=True)
class Work:
    """What the runs of one grid have in common."""

    root: Path  # of the store
    options: Options
    function: str = EXECUTE  # called as function(spec, store, options) -> RunResult; it saves its result
    preload: tuple[str, ...] = PRELOAD  # modules that every run's process finds imported

    @property
    def store(self) -> Store:
        """The store that results go to."""
        return Store(self.root)


_starting = threading.Lock()
_answered = threading.Event()  # the fork server has: it will not keep anyone waiting again


def warm(preload: Iterable[str] = PRELOAD) -> None:
    """Start the fork server, which imports ``preload`` meanwhile. Later calls cost nothing."""
    with _starting:
        _context(tuple(preload))


def start(target: Any, arguments: tuple[Any, ...], preload: Iterable[str] = PRELOAD, name: str = "") -> Any:
    """Start ``target(*arguments)`` in a process forked from the server; it may be called from any process."""
    with _starting, _undisturbed() if _answered.is_set() else nullcontext():
        process = _context(tuple(preload)).Process(target=target, args=arguments, name=name or None, daemon=True)
        # A daemon may not have children in the eyes of multiprocessing, and dask's workers are daemons; ours end
        # with the process that started them whatever happens.
        flags: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
        daemon = flags.get("daemon", False)
        # The user's script must not be imported once more in the child, as multiprocessing would do.
        main = sys.modules["__main__"]
        try:
            flags["daemon"] = False
            sys.modules["__main__"] = ModuleType("__main__")
            process.start()
        except (EOFError, OSError) as error:
            raise IadbeError(f"no process can be started: {error or 'the fork server has died'}.") from error
        finally:
            sys.modules["__main__"] = main
            flags["daemon"] = daemon
        _answered.set()
    return process


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let interrupts wait for the end of the block, so that no process is left half started."""
    missed: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours = (n for n in KEPT_FROM_SERVER if callable(signal.getsignal(n)))
        handlers = {n: signal.signal(n, lambda number, frame: missed.append(number)) for n in ours}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in missed[:1]:
            signal.raise_signal(number)


def _context(preload: tuple[str, ...]) -> Any:
    """Fork where forking is sound: on Linux, from a server that imports and does nothing else."""
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*preload, __name__])
    before = signal.pthread_sigmask(signal.SIG_BLOCK, KEPT_FROM_SERVER)  # it inherits this
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


# ---- inside the process of a run -------------------------------------------------------------------------------------


def live(connection: Connection, spec: RunSpec, work: Work, environment: Mapping[str, str]) -> None:
    """Be the process of one run, from its first line to its end."""
    code = 1
    try:
        multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
        _be_alone(connection)
        _write_to(work.store.log(spec))
        os.environ.clear()  # the server's may be older than the caller's
        os.environ.update(environment)
        use_threads(work.options.threads)
        messenger = Messenger(connection)
        with progress.listening(messenger):
            outcome = _carry_out(spec, work)
        messenger.last(*outcome)
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # threads and libraries that will not end cannot hold up the grid


def _carry_out(spec: RunSpec, work: Work) -> tuple[RunResult | None, str | NoSpace]:
    """Call the function; return its result, or what went wrong outside a detector, where it should not."""
    try:
        return function(work.function)(spec, work.store, work.options), ""
    except NoSpace as error:
        return None, error
    except IadbeError as error:
        return None, str(error)
    except Exception as error:
        traceback.print_exc()
        return None, NoSpace.of(error) or f"{type(error).__name__}: {error}"


def function(name: str) -> Any:
    """Import what ``module:function`` names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _be_alone(connection: Connection) -> None:
    """Have a session of one's own, and die with the process that started the run."""
    if hasattr(os, "setsid"):
        os.setsid()  # Ctrl-C in a terminal reaches the parent alone, which then ends its runs in good order
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(ASKED_TO_STOP))  # so that `finally` is obeyed
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # the fork server is the parent here
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()


def _die_with(connection: Connection) -> None:
    """Wait for the far end to close, which happens however the other process ends."""
    with suppress(EOFError, OSError):
        connection.recv_bytes()
    with suppress(OSError):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def _write_to(log: Path) -> None:
    """Send all that the process prints, C libraries included, to a fresh file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)  # another grid's run may still write to the old one
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for name, number in (("stdout", 1), ("stderr", 2)):  # line by line, so that a crash loses nothing
        stream = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    faulthandler.enable(all_threads=False)  # a crash in C leaves the Python lines that led to it


def use_threads(count: int) -> None:
    """Use ``count`` threads for arithmetic, in libraries that are loaded and in those that will be; 0: as they like."""
    if count <= 0:
        return
    for name in THREADS:
        os.environ[name] = str(count)
    threadpool_limits(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


class Messenger:
    """Hands reports on to the parent: about ten a second of each phase, and never waiting for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._said: dict[str, float] = {}

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        with self._lock:
            finished = report.total and report.done >= report.total
            if not finished and now - self._said.get(report.phase, -EVERY) < EVERY:
                return
            if select([], [self._connection], [], 0)[1]:  # a parent that is busy or stopped does not stop the run
                self._connection.send(report)
                self._said[report.phase] = now

    def last(self, result: RunResult | None, error: str | NoSpace) -> None:
        """Send the outcome."""
        with self._lock:
            self._connection.send((result, error))
