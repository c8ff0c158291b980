"""The contract of an executor: it carries out runs and yields events. Results are in the store."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.progress import Report
from iadbe.running.worker import PRELOAD, THREADS, RunContext, start
from iadbe.types import Options, RunResult, RunSpec


@dataclass(frozen=True, slots=True)
class GridPlanned:
    """Number of runs of the grid, and how many of them the store already has."""

    total: int
    already: int


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A run's process has started."""

    spec: RunSpec
    pid: int
    host: str = ""  # "" is this machine


@dataclass(frozen=True, slots=True)
class RunProgress:
    """A progress report of a run."""

    spec: RunSpec
    report: Report


@dataclass(frozen=True, slots=True)
class RunFinished:
    """A run has ended, with or without an error, and is in the store."""

    spec: RunSpec
    result: RunResult
    seconds: float  # of wall time; 0 if another process had done it meanwhile


@dataclass(frozen=True, slots=True)
class GridMessage:
    """One sentence for the user about the grid as a whole."""

    text: str


Event = GridPlanned | RunStarted | RunProgress | RunFinished | GridMessage


class Executor(ABC):
    """Carries out runs, each in a process of its own."""

    def __init__(self, context: RunContext, jobs: int = 0, scheduler: str = "") -> None:
        """Configure the executor.

        Args:
            context: what all runs have in common
            jobs: runs at a time; 0: what suits the machine
            scheduler: address of the scheduler, for executors that have one
        """
        self.context = context
        self.jobs = jobs
        self.scheduler = scheduler

    @abstractmethod
    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs, started in order; yield one :class:`RunFinished` for each, and other events.

        A crash of a run's process, or of its machine, becomes that run's result. Closing the generator ends the
        runs under way and leaves nothing half written.
        """


@dataclass(frozen=True, slots=True)
class Slot:
    """The share of this machine that one concurrent run gets: CPU threads and a GPU."""

    threads: int
    gpu: str = ""  # as CUDA_VISIBLE_DEVICES names it; "": not tied to one

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables for it."""
        threads = dict.fromkeys(THREADS, str(self.threads))
        return {**threads, "CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else threads

    def context(self, context: RunContext) -> RunContext:
        """Return the context with the threads of this slot."""
        return replace(context, options=replace(context.options, threads=self.threads))


def slots(options: Options, jobs: int = 0, preload: Sequence[str] = PRELOAD) -> tuple[Slot, ...]:
    """Share this machine among ``jobs`` runs at a time; 0: one for each GPU, or one for every four cores."""
    if jobs < 0:
        raise BadConfig(f"{jobs} runs at a time are not possible. Give --jobs 1 or more, or 0 for what suits.")
    found = gpus(preload) if options.device in ("auto", "cuda") else []
    one = options.device.startswith("cuda:")  # that GPU is named: runs are not spread over several
    jobs = jobs or (1 if one else len(found) or max(1, system.cores() // 4))
    threads = options.threads or max(1, system.cores() // jobs)
    return tuple(Slot(threads, found[i % len(found)] if found else "") for i in range(jobs))


def gpus(preload: Sequence[str]) -> list[str]:
    """Return the GPUs that torch can use, as CUDA_VISIBLE_DEVICES names them.

    They are counted in another process, so that this one neither imports torch nor keeps a GPU open.
    """
    ours, theirs = multiprocessing.Pipe()
    process = start(_send_gpu_count, (theirs,), preload, "iadbe gpus")
    theirs.close()
    try:
        count = ours.recv()
    except EOFError:
        count = 0
    process.join()
    named = [n.strip() for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip()]
    return named[:count] if named else [str(i) for i in range(count)]


def _send_gpu_count(connection: Any) -> None:
    import torch

    connection.send(torch.cuda.device_count())
