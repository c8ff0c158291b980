"""Runs on this machine, several at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from multiprocessing.connection import wait

from iadbe import system
from iadbe.running.executor import Event, Executor, RunFinished, RunProgress, RunStarted, Slot, slots
from iadbe.running.process import POLL_SECONDS, RunProcess, completed_result, stop
from iadbe.types import RunSpec


class Local(Executor):
    """Processes of this machine. Each slot takes the next run as soon as it is free."""

    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs; closing the generator ends those under way."""
        free = list(reversed(slots(self.context.options, self.jobs, self.context.preload)))
        waiting = list(reversed(specs))
        running: dict[RunProcess, Slot] = {}
        try:
            while waiting or running:
                while free and waiting:
                    spec = waiting.pop()
                    if (found := completed_result(self.context.store, spec)) is not None:  # done by another process
                        yield RunFinished(spec, found, 0.0)
                        continue
                    slot = free.pop()
                    child = RunProcess(spec, slot.context(self.context), slot.environment)
                    running[child] = slot
                    yield RunStarted(spec, child.pid)
                wait(system.waitable([w for child in running for w in child.wait_handles]), POLL_SECONDS)
                for child in list(running):
                    for report in child.poll():
                        yield RunProgress(child.spec, report)
                    if child.result is not None:
                        free.append(running.pop(child))
                        yield RunFinished(child.spec, child.result, child.seconds)
        finally:
            stop(running)
            self.context.store.sweep()
