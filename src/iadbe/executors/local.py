"""Runs on this machine, several at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from multiprocessing.connection import wait

from iadbe.running.executor import Event, Executor, Finished, Lane, Progress, Started, lanes
from iadbe.running.process import LOOK, Child, good, stop
from iadbe.types import RunSpec


class Local(Executor):
    """Processes of this machine. Each lane of it takes the next run as soon as it is free."""

    def run(self, specs: Sequence[RunSpec]) -> Generator[Event]:
        """Carry out the runs; closing the generator ends those under way."""
        free = list(reversed(lanes(self.work.options, self.jobs, self.work.preload)))
        waiting = list(reversed(specs))
        running: dict[Child, Lane] = {}
        try:
            while waiting or running:
                while free and waiting:
                    spec = waiting.pop()
                    if (found := good(self.work.store, spec)) is not None:  # another process was quicker
                        yield Finished(spec, found, 0.0)
                        continue
                    lane = free.pop()
                    child = Child(spec, lane.work(self.work), lane.environment)
                    running[child] = lane
                    yield Started(spec, child.pid)
                wait([w for child in running for w in child.waits], LOOK)
                for child in list(running):
                    for report in child.look():
                        yield Progress(child.spec, report)
                    if child.result is not None:
                        free.append(running.pop(child))
                        yield Finished(child.spec, child.result, child.seconds)
        finally:
            stop(running)
            self.work.store.sweep()
