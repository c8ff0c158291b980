"""The contract of an executor: it carries out runs somewhere and tells what happens. The truth is the store."""

from __future__ import annotations

import multiprocessing
import os
from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from iadbe.errors import BadConfig
from iadbe.progress import Report
from iadbe.running.worker import PRELOAD, THREADS, Work, start
from iadbe.types import Options, RunResult, RunSpec


@dataclass(frozen=True, slots=True)
class Planned:
    """The grid is known: how many runs it has, and how many of them the store holds already."""

    total: int
    already: int


@dataclass(frozen=True, slots=True)
class Started:
    """A run has got its process."""

    spec: RunSpec
    pid: int
    host: str = ""  # "" is this machine


@dataclass(frozen=True, slots=True)
class Progress:
    """A run says how far it is."""

    spec: RunSpec
    report: Report


@dataclass(frozen=True, slots=True)
class Finished:
    """A run is over, well or not, and in the store."""

    spec: RunSpec
    result: RunResult
    seconds: float  # of wall time; 0 if another process had done it meanwhile


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence for the user about the grid as a whole."""

    text: str


Event = Planned | Started | Progress | Finished | Notice


class Executor(ABC):
    """A place where runs are carried out, each in a process of its own."""

    def __init__(self, work: Work, jobs: int = 0, scheduler: str = "") -> None:
        """Get ready.

        Args:
            work: what all runs have in common
            jobs: runs at a time; 0: what suits the machine
            scheduler: the address of what hands out work, where there is such a thing
        """
        self.work = work
        self.jobs = jobs
        self.scheduler = scheduler

    @abstractmethod
    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs, starting them in order; yield one :class:`Finished` for each, and more on the way.

        What a run does to its process, and to the machine below it, ends in that run's result. Closing the
        generator ends what is under way and leaves nothing half done behind.
        """


@dataclass(frozen=True, slots=True)
class Lane:
    """What one of the runs at a time gets of this machine."""

    threads: int
    gpu: str = ""  # as CUDA_VISIBLE_DEVICES names it; "": not tied to one

    @property
    def environment(self) -> dict[str, str]:
        """The variables that tell libraries so."""
        threads = dict.fromkeys(THREADS, str(self.threads))
        return {**threads, "CUDA_VISIBLE_DEVICES": self.gpu} if self.gpu else threads

    def work(self, work: Work) -> Work:
        """Return the work as it is done in this lane."""
        return replace(work, options=replace(work.options, threads=self.threads))


def lanes(options: Options, jobs: int = 0, preload: Sequence[str] = PRELOAD) -> tuple[Lane, ...]:
    """Share this machine among ``jobs`` runs at a time; 0: one for each GPU, or one for every four cores."""
    if jobs < 0:
        raise BadConfig(f"{jobs} runs at a time are not possible. Give --jobs 1 or more, or 0 for what suits.")
    found = gpus(preload) if options.device in ("auto", "cuda") else []
    one = options.device.startswith("cuda:")  # that GPU is named: runs are not spread over several
    jobs = jobs or (1 if one else len(found) or max(1, cores() // 4))
    threads = options.threads or max(1, cores() // jobs)
    return tuple(Lane(threads, found[i % len(found)] if found else "") for i in range(jobs))


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus(preload: Sequence[str]) -> list[str]:
    """Return the GPUs that torch can use, as CUDA_VISIBLE_DEVICES names them.

    Another process is asked, so that this one need not import torch, nor hold a GPU for as long as it lives.
    """
    ours, theirs = multiprocessing.Pipe()
    process = start(_tell_gpus, (theirs,), preload, "iadbe gpus")
    theirs.close()
    try:
        count = ours.recv()
    except EOFError:
        count = 0
    process.join()
    named = [n.strip() for n in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if n.strip()]
    return named[:count] if named else [str(i) for i in range(count)]


def _tell_gpus(connection: Any) -> None:
    import torch

    connection.send(torch.cuda.device_count())
