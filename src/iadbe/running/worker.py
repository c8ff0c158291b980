"""Runs inside the process of a run: log file, threads, progress reports, exit with the parent process.

The process is forked from a server that has already imported torch, so that a short run has no start-up time.
"""

from __future__ import annotations

import faulthandler
import importlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Full, Queue
from types import ModuleType
from typing import Any

from threadpoolctl import threadpool_limits

from iadbe import progress, registry, system
from iadbe.errors import IadbeError, NoSpace
from iadbe.progress import Report
from iadbe.running import fork_server
from iadbe.running.store import Store
from iadbe.types import Options, RunResult, RunSpec

EXECUTE = "iadbe.running.run:execute"
PRELOAD = ("torch", "timm", "iadbe.running.run")
REPORT_SECONDS = 0.1  # seconds between two reports of one phase
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
WAITING_REPORTS = 32  # that are not sent yet; further ones are dropped
EXIT_TERMINATED = 128 + signal.SIGTERM  # a run's exit code after its clean-up
END = b"end"  # the parent's word to a run: clean up and end


@dataclass(frozen=True, slots=True)
class RunContext:
    """What all runs of one grid share."""

    root: Path  # of the store
    options: Options
    function: str = EXECUTE  # called as function(spec, store, options) -> RunResult; it saves its result
    preload: tuple[str, ...] = PRELOAD  # modules that every run's process finds imported
    trusted: tuple[str, ...] = field(default_factory=registry.trusted)  # classes outside the registries

    @property
    def store(self) -> Store:
        """The store that results go to."""
        return Store(self.root)


_starting = threading.Lock()
_answered = threading.Event()  # set when the fork server has started its first process


def start_fork_server(preload: Iterable[str] = PRELOAD) -> None:
    """Start the fork server, which imports ``preload`` meanwhile. Later calls cost nothing."""
    with _starting:
        _context(tuple(preload))


def start(target: Any, arguments: tuple[Any, ...], preload: Iterable[str] = PRELOAD, name: str = "") -> Any:
    """Start ``target(*arguments)`` in a process forked from the server; it may be called from any process.

    ``target`` is a function of a module, since other systems import it in the new process.
    """
    with _starting, _signals_deferred() if _answered.is_set() else nullcontext():
        process = _context(tuple(preload)).Process(target=target, args=arguments, name=name or None, daemon=True)
        # multiprocessing forbids daemons to have children, and dask's workers are daemons; ours end
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
def _signals_deferred() -> Iterator[None]:
    """Delay interrupts until the end of the block, so that no process is left half started."""
    missed: list[int] = []
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        ours = (n for n in system.INTERRUPTS if callable(signal.getsignal(n)))
        handlers = {n: signal.signal(n, lambda number, frame: missed.append(number)) for n in ours}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in missed[:1]:
            signal.raise_signal(number)


def _context(preload: tuple[str, ...]) -> Any:
    """Return the multiprocessing context: a fork server that only imports, or spawn where there is none."""
    if not system.FORKS:
        return multiprocessing.get_context("spawn")
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([fork_server.__name__, *preload, __name__])
    with system.signals_blocked(), fork_server.announced():  # the server ends with its parent, not before
        forkserver.ensure_running()
    return context


# ---- inside the process of a run -------------------------------------------------------------------------------------


def process_main(connection: Connection, spec: RunSpec, context: RunContext, environment: Mapping[str, str]) -> None:
    """Main function of a run's process."""
    multiprocessing.current_process()._config["daemon"] = False  # type: ignore[attr-defined]  # it may have children
    log, threads = context.store.log(spec), context.options.threads
    call_and_exit(connection, log, threads, context.trusted, environment, partial(_outcome, spec, context))


def call_and_exit(
    connection: Connection, log: Path, threads: int, trusted: tuple[str, ...], environment: Mapping[str, str],
    call: Callable[[], tuple[RunResult | None, str | NoSpace]],
) -> None:  # fmt: skip
    """Be a process of its own for one call: send its progress and its outcome, and end."""
    code = 1
    try:
        _isolate(connection)
        _redirect_output(log)
        os.environ.clear()  # the server's may be older than the caller's
        os.environ.update(environment)
        set_threads(threads)
        registry.trust(*trusted)
        sender = ProgressSender(connection)
        with progress.listening(sender):
            outcome = call()
        sender.send_outcome(*outcome)
        code = 0
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)  # hanging threads or libraries cannot block who waits for it


def _outcome(spec: RunSpec, context: RunContext) -> tuple[RunResult | None, str | NoSpace]:
    """Call the function; return its result, or the error that it did not turn into a result."""
    try:
        return function(context.function)(spec, context.store, context.options), ""
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


def _isolate(connection: Connection) -> None:
    """Start a session, and end with the process that started the run."""
    system.start_session()  # Ctrl-C in a terminal reaches the parent only, which ends its runs
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # so that `finally` blocks run
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    system.unblock_signals()
    system.die_with_fork_server()
    threading.Thread(target=_exit_with_parent, args=(connection,), daemon=True).start()


def _exit_with_parent(connection: Connection) -> None:
    """End at the parent's word; and at once when its end of the pipe closes, which happens however it ends."""
    with suppress(EOFError, OSError):
        while connection.recv_bytes():
            system.interrupt_main(signal.SIGTERM)  # not os.kill, which Windows does not let us handle
    system.kill_tree(os.getpid())
    os._exit(1)


def _redirect_output(log: Path) -> None:
    """Redirect all output of the process, including that of C libraries, to a fresh file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with suppress(PermissionError):  # another grid's run still writes to the old one: then both do
        log.unlink(missing_ok=True)
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)
    for name, number in (("stdout", 1), ("stderr", 2)):  # line by line, so that a crash loses nothing
        stream = open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
    faulthandler.enable(all_threads=False)  # a crash in C leaves the Python lines that led to it


def set_threads(count: int) -> None:
    """Use ``count`` threads for arithmetic, in loaded libraries and in those loaded later; 0: their default."""
    if count <= 0:
        return
    for name in THREADS:
        os.environ[name] = str(count)
    threadpool_limits(count)
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(count)


class ProgressSender:
    """Sends reports to the parent: about ten a second for each phase, without waiting for it."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._sent_at: dict[str, float] = {}
        self._waiting: Queue[Any] = Queue(WAITING_REPORTS)
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._send, name="progress", daemon=True)
        self._thread.start()

    def __call__(self, report: Report) -> None:
        now = time.monotonic()
        with self._lock:
            finished = report.total and report.done >= report.total
            if not finished and now - self._sent_at.get(report.phase, -REPORT_SECONDS) < REPORT_SECONDS:
                return
            with suppress(Full):  # a busy or stopped parent does not block the run
                self._waiting.put_nowait(report)
                self._sent_at[report.phase] = now

    def send_outcome(self, result: RunResult | None, error: str | NoSpace) -> None:
        """Send the outcome, after all reports; nothing can be sent later."""
        self._waiting.put((result, error))
        self._waiting.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _send(self) -> None:
        """Send what waits; a pipe can be asked whether it is full on some systems only."""
        while (message := self._waiting.get()) is not None:
            if self._error is None:
                try:
                    self._connection.send(message)
                except Exception as error:  # the parent is gone, or the result cannot be pickled
                    self._error = error


fork_server.all_imported()  # this module is the last one that a fork server imports
