"""What a run collects while it is under way: rows, scores, notes, times, memory; at the end it is the run's result."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from iadbe import environment, progress, system
from iadbe.detector import Detector
from iadbe.layers.training.precision import computing
from iadbe.layers.training.resume import Checkpoints
from iadbe.networks import feature_store
from iadbe.protocol import Protocol
from iadbe.running import artifacts, code_digest, model_folder
from iadbe.types import Options, Row, RunResult, RunSpec, Score


@dataclass
class RunRecord:
    """The results of a run, collected while it is under way."""

    spec: RunSpec
    options: Options
    folder: Path | None
    error: str = ""
    transient: bool = False
    rows: list[Row] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    latency_ms: float = float("nan")
    images: dict[str, int] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)
    counters: feature_store.Counters = field(default_factory=feature_store.Counters)
    weights: str = ""
    device: str = ""
    calibration: model_folder.Calibration | None = None
    losses: artifacts.Losses = field(default_factory=artifacts.Losses)
    steps: progress.StepCount = field(default_factory=progress.StepCount)
    latency_range_ms: tuple[float, ...] = ()
    other_cores: float = float("nan")  # that other processes used while the latency was measured
    checkpoints: Checkpoints | None = None

    @property
    def keeps_model(self) -> bool:
        """Whether the fitted detector is saved."""
        return self.folder is not None and self.options.keep_model

    @contextmanager
    def training(self, detector: Detector, step: int) -> Iterator[None]:
        """Keep checkpoints of the block's training, and count what interrupted processes have spent on it."""
        if self.checkpoints is None:
            yield
            return
        before = dict(self.checkpoints.earlier)
        with self.checkpoints.training(detector, str(step)):
            yield
        for spent, clock in ((self.seconds, "wall"), (self.cpu_seconds, "cpu")):
            for phase in ("fit", "total"):
                spent[phase] = spent.get(phase, 0.0) + self.checkpoints.earlier[clock] - before[clock]

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.perf_counter() - wall
            self.cpu_seconds[phase] = self.cpu_seconds.get(phase, 0.0) + time.process_time() - cpu

    @contextmanager
    def limited(self, share: float = 1.0) -> Iterator[None]:
        """Give training loops of the block the protocol's budget, or a share of it, its precision and accumulation."""
        chosen = Protocol.parse(self.spec.protocol)
        limit = chosen.budget
        seconds = None if limit is None else limit.seconds * share
        arithmetic = computing(chosen.precision, self.device, chosen.accumulate)
        with arithmetic, progress.budget(seconds, bool(limit and limit.cpu)) as budget:
            yield
        self.notes += _budget_notes(budget)

    def result(self) -> RunResult:
        """Return what was collected as the run's result."""
        return RunResult(
            spec=self.spec,
            rows=() if self.error else tuple(self.rows),
            error=self.error,
            transient=self.transient,
            scores=() if self.error else tuple(self.scores),
            notes=tuple(dict.fromkeys((*self.notes, *(self.checkpoints.notes if self.checkpoints else ())))),
            seconds={k: round(v, 4) for k, v in self.seconds.items()},
            cpu_seconds={k: round(v, 4) for k, v in self.cpu_seconds.items()},
            latency_ms=self.latency_ms,
            latency_range_ms=self.latency_range_ms,
            steps={"done": self.steps.done, "planned": self.steps.planned} if self.steps.planned else {},
            images=self.images,
            data_name=Path(self.spec.place["root"]).name if "root" in self.spec.place else "",
            memory={**self.memory, "peak": system.peak_memory(), **environment.peak_cuda(self.device)},
            features={"computed": self.counters.computed, "stored": self.counters.stored},
            weights=self.weights,
            environment={
                **environment.environment(self.options, self.device),
                "source": code_digest.of_detector(self.spec.detector),
                "other_cores": self.other_cores,
            },
        )


def _budget_notes(budget: progress.Budget) -> list[str]:
    """Return the notes on a fit that had a time budget."""
    if budget.seconds is None:
        return []
    time = f"{budget.seconds:g} s" + (" of CPU time" if budget.cpu else "")
    if budget.ended:
        return [f"training ended with its budget of {time}, before its last epoch."]
    if budget.is_spent():
        return [f"the fit took longer than its budget of {time}, which ends training loops only."]
    return []
