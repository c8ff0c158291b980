"""Carry out runs on this machine until Ctrl-C: jobs of a results server, or runs of a dask scheduler.

With --store it takes jobs that wait there (`iadbe serve` shows and adds them), one after the other. When it is
stopped, its job returns to the queue. Many workers may share a store; another one takes the job of a dead worker.

With ADDRESS, what `dask scheduler` prints when it starts, it serves `iadbe benchmark --executor dask --scheduler
ADDRESS`: with one worker for each GPU, or one for every four cores. The store's folder must be one that all machines
see.

    iadbe worker --store runs
    iadbe worker tcp://192.168.0.7:8786
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import add_trust, parse


def run(arguments: Sequence[str]) -> int:
    """Work until interrupted."""
    values = parse("worker", __doc__ or "", arguments, _add, form="[ADDRESS] [options]").values
    if values["address"] and values["store"]:
        raise UsageError("which queue? Give --store DIR for its jobs, or the address of a dask scheduler, not both.")
    if values["store"]:
        from iadbe.jobs import worker
        from iadbe.running.store import Store

        url, device = values["database"] or os.environ.get("IADBE_DATABASE", ""), values["device"]
        try:
            if values["tied"]:
                threading.Thread(target=_end_with_input, daemon=True).start()
            worker.serve(
                Store(values["store"]), url, jobs=values["jobs"], device="" if device == "auto" else device,
                until_empty=values["until_empty"],
            )  # fmt: skip
        except KeyboardInterrupt:
            if not values["tied"]:  # whoever it is tied to has ended, before it took a job
                raise
        return 0
    if not values["address"]:
        raise UsageError(
            "which queue? Give --store DIR for the jobs of a store, or the address that `dask scheduler` prints, "
            "for example tcp://192.168.0.7:8786."
        )
    from iadbe.executors import dask  # says what to install where it is missing

    dask.serve(values["address"], values["jobs"], values["device"])
    return 0


def _end_with_input() -> None:
    """End this process when the process that started it ends."""
    with suppress(OSError):
        while os.read(sys.stdin.fileno(), 1):  # not through a buffer: its lock would crash the interpreter's end
            pass
    system.interrupt_main(signal.SIGTERM)


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("address", type=str, nargs="?", default="", metavar="ADDRESS", help="of a dask scheduler")
    parser.add_argument("--store", type=str, default="", metavar="DIR", help="take the jobs that wait in this store")
    parser.add_argument(
        "--database",
        type=str,
        default="",
        metavar="URL",
        help="of the jobs; else SQLite in the store, or IADBE_DATABASE",
    )
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; 0: one for each GPU or every four cores")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--until-empty", action="store_true", help="end when no job waits any more")
    add_trust(parser)
    parser.add_argument("--tied", action="store_true", help="end when the standard input does")
