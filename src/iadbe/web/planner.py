"""Plans grids in a process of its own, with limits of time and memory, so that no request can hold or fill the server.

The process is started with the first plan and reused. It is ended where a plan takes too long or too much memory, or
where its client has gone. Requests and answers are lines of JSON on its standard input and output.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from iadbe import errors
from iadbe.errors import BadConfig, IadbeError
from iadbe.running.process import resident_memory
from iadbe.web.cancellation import stop_if
from iadbe.web.grid_request import MAX_RUNS
from iadbe.web.problems import RequestRefused

MAX_SECONDS = 30.0
MAX_MEMORY = 2 * 2**30  # bytes of resident memory
MAX_WAIT = 20.0  # seconds that a request waits for the one before it
POLL = 0.05  # seconds between two checks of time, memory and client
SHOWN = 200  # runs and skipped cells listed in an answer


class Planner:
    """The planning process of a server. Thread-safe; plans are made one after the other."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()

    def plan(self, grid: dict[str, Any], cancelled: threading.Event | None = None) -> dict[str, Any]:
        """Return the counts and the first runs of a grid.

        Raises the errors of :func:`iadbe.running.plan.expand`, :class:`BadConfig` where planning exceeds a limit, and
        :class:`RequestRefused` where the planner is busy or ``cancelled`` is set.
        """
        if not self._lock.acquire(timeout=MAX_WAIT):
            raise RequestRefused(503, "the server is planning other grids.", **{"Retry-After": "10"})
        try:
            process = self._running()
            assert process.stdin is not None
            with suppress(OSError):  # it has ended
                process.stdin.write(json.dumps(grid) + "\n")
                process.stdin.flush()
            return _result(self._wait(process, cancelled or threading.Event()))
        finally:
            self._lock.release()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._answers = queue.SimpleQueue()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "iadbe.web.planner", str(self.root)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8",
            )  # fmt: skip
            threading.Thread(target=_forward, args=(self._process, self._answers), daemon=True).start()
        return self._process

    def _wait(self, process: subprocess.Popen[str], cancelled: threading.Event) -> dict[str, Any]:
        """Return the process's answer. Ends it where a limit is exceeded."""
        deadline = time.monotonic() + MAX_SECONDS
        while True:
            with suppress(queue.Empty):
                line = self._answers.get(timeout=POLL)
                if not line:
                    self._end()
                    raise BadConfig("the plan took too much memory. Ask for less at a time.")
                found: dict[str, Any] = json.loads(line)
                return found
            if cancelled.is_set():
                self._end()
                stop_if(cancelled)
            if time.monotonic() > deadline:
                self._end()
                raise BadConfig(f"planning took longer than {MAX_SECONDS:.0f} s. Ask for less at a time.")
            if resident_memory(process.pid) > MAX_MEMORY:
                self._end()
                raise BadConfig("the plan took too much memory. Ask for less at a time.")

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with suppress(OSError):
                        stream.close()
        self._process = None


def _forward(process: subprocess.Popen[str], answers: queue.SimpleQueue[str]) -> None:
    """Put the lines of a process's output into a queue; an empty line at its end."""
    assert process.stdout is not None
    with suppress(OSError, ValueError):
        for line in process.stdout:
            answers.put(line)
    answers.put("")


def _result(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" not in answer:
        return answer
    kind = getattr(errors, answer["error"], None)
    if isinstance(kind, type) and issubclass(kind, IadbeError):
        raise kind(answer["detail"])
    raise RuntimeError(f"planning failed: {answer['error']}: {answer['detail']}")


def summarize(grid: dict[str, Any], root: Path) -> dict[str, Any]:
    """Plan a grid and return its counts, its first runs and its first skipped cells."""
    from iadbe.running import plan
    from iadbe.running.store import Store
    from iadbe.seeds import run_id

    store = Store(root)
    planned = plan.expand(grid, store)
    if len(planned.runs) > MAX_RUNS:
        raise BadConfig(f"{len(planned.runs)} runs are too many for one job; {MAX_RUNS} are allowed.")
    names = ("detector", "dataset", "setting", "task", "seed", "protocol")
    return {
        "runs": len(planned.runs),
        "done": sum(map(store.has, planned.runs)),
        "skipped": len(planned.skipped),
        "notes": list(planned.notes),
        "some": [{"id": run_id(s), **{n: getattr(s, n) for n in names}} for s in planned.runs[:SHOWN]],
        "reasons": [{"what": s.what, "reason": s.reason} for s in planned.skipped[:SHOWN]],
    }


def main(root: Path) -> None:
    """Answer the grids on the standard input, until it ends."""
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a library prints must not mix with the answers
    for line in iter(sys.stdin.readline, ""):
        overdue = threading.Timer(2 * MAX_SECONDS, os._exit, [1])  # the server, which would end it, may be gone
        overdue.daemon = True
        overdue.start()
        try:
            answer = summarize(json.loads(line), root)
        except Exception as error:  # the server distinguishes its own errors from bugs
            answer = {"error": type(error).__name__, "detail": str(error)}
        overdue.cancel()
        output.write(json.dumps(answer) + "\n")
        output.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
