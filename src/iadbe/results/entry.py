"""A detector with one set of parameters and its runs: numbers by category and seed, scores, costs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np

from iadbe.evaluation.confidence import CategoryScores
from iadbe.results.run_cases import CaseSource, cases_of, merged
from iadbe.settings.shifted import corruption_of
from iadbe.types import Row, RunResult, Score

NAN = math.nan
MAD = "mad"
MAD_OF = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
Cells = Mapping[str, Mapping[int, float]]  # values by category and seed


@dataclass(frozen=True)
class Entry:
    """A detector with one set of parameters, and its runs."""

    name: str  # "patchcore"; "patchcore(coreset=0.01)" where there are several
    detector: str
    params: Mapping[str, Any]
    runs: tuple[RunResult, ...]  # without an error
    failed: tuple[RunResult, ...]
    task_in_name: bool = False  # the task is part of the category: several tasks have a test of the same name
    case_source: CaseSource = field(default=cases_of, compare=False, repr=False)  # where the runs' scores come from

    def category(self, run: RunResult, test: str) -> str:
        """Return the category of a run's test."""
        return f"{run.spec.task}: {test}" if self.task_in_name and run.spec.task != test else test

    @cached_property
    def cells(self) -> dict[str, dict[str, dict[int, float]]]:
        """Finite values by metric, category and seed."""
        return self._by_category((run, row) for run, row in self._last_rows if not is_changed(run, row.test))

    @cached_property
    def changed(self) -> dict[tuple[str, int], dict[str, dict[str, dict[int, float]]]]:
        """The same under each corruption, by kind and strength; empty where none was tested."""
        groups: dict[tuple[str, int], list[tuple[RunResult, Row]]] = {}
        for run, row in self._last_rows:
            if is_changed(run, row.test) and (found := corruption_of(row.test)):
                groups.setdefault(found[1:], []).append((run, row._replace(test=found[0])))
        return {change: self._by_category(rows) for change, rows in groups.items()}

    @cached_property
    def _last_rows(self) -> list[tuple[RunResult, Row]]:
        lasts = [(run, max((row.step for row in run.rows), default=0)) for run in self.runs]
        return [(run, row) for run, last in lasts for row in run.rows if row.step == last and math.isfinite(row.value)]

    def _by_category(self, rows: Iterable[tuple[RunResult, Row]]) -> dict[str, dict[str, dict[int, float]]]:
        found: dict[str, dict[str, dict[int, float]]] = {}
        for run, row in rows:
            by_category = found.setdefault(row.metric, {})
            by_category.setdefault(self.category(run, row.test), {})[run.spec.seed] = row.value
        if mad := _mad(found):
            found[MAD] = mad
        return found

    @cached_property
    def cases(self) -> dict[str, list[CategoryScores]]:
        """The scores of each category's test images after the last step, where the runs have them.

        One item holds all seeds; where seeds tested different images, each seed has an item of its own.
        """
        by_category: dict[str, dict[int, list[CategoryScores]]] = {}
        for run in self.runs:
            for test, case in self.case_source(run).items():
                if not is_changed(run, test):
                    seeds = by_category.setdefault(self.category(run, test), {})
                    seeds.setdefault(run.spec.seed, []).append(case)
        found = {}
        for name, by_seed in sorted(by_category.items()):
            cases = [merged(parts) for parts in by_seed.values()]
            if all(c.ids == cases[0].ids for c in cases):
                cases = [cases[0]._replace(score=np.concatenate([c.score for c in cases]))]
            found[name] = cases
        return found

    def value(self, metric: str, wanted: str) -> float:
        """Return the mean over seeds in one category, or nan."""
        seeds = self.cells.get(metric, {}).get(wanted, {})
        return fmean(seeds.values()) if seeds else NAN

    @property
    def unfinished(self) -> bool:
        """Return whether a run did less than :data:`FINISHED` of its planned training steps."""
        return self.progress < FINISHED

    @property
    def progress(self) -> float:
        """The share of the planned training steps that the least trained run did; 1 without training."""
        least = self.steps
        return 1.0 if least is None else least[0] / least[1]

    @cached_property
    def steps(self) -> tuple[int, int] | None:
        """(done, planned) training steps of the least trained run; None where no run states them."""
        found = [(r.steps["done"], r.steps["planned"]) for r in self.runs if r.steps.get("planned", 0) > 0]
        return min(found, key=lambda pair: pair[0] / pair[1]) if found else None

    @cached_property
    def images(self) -> dict[str, int]:
        """Images in the data by tested category; empty where a run does not state them."""
        if not all(run.images for run in self.runs):
            return {}
        return {category: count for run in self.runs for category, count in run.images.items()}

    @cached_property
    def engines(self) -> dict[str, int]:
        """Engines of backbones that latencies were measured with, and their runs; the most frequent engine first."""
        found = Counter(engine_of(r) for r in self.runs if math.isfinite(r.latency_ms))
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0] != "torch", pair[0])))

    @cached_property
    def timed(self) -> list[RunResult]:
        """The runs whose latency counts: those of one engine, for times of several engines are not one number."""
        engine = next(iter(self.engines), "")
        return [r for r in self.runs if math.isfinite(r.latency_ms) and engine_of(r) == engine]

    @cached_property
    def latency_range(self) -> tuple[float, float] | None:
        """Lowest and highest milliseconds per image over runs and repeats; None with a single measurement."""
        ends = [v for r in self.timed if len(r.latency_range_ms) == 2 for v in r.latency_range_ms]
        medians = [r.latency_ms for r in self.timed]
        if not medians or not (ends or len(medians) > 1):
            return None
        return min(ends + medians), max(ends + medians)

    def cost(self, name: str) -> float:
        """Return milliseconds per image, fit seconds, megabytes of the model (means) or peak megabytes (maximum)."""
        runs = self.timed if name == "latency_ms" else self.runs
        values = [v for v in (COSTS[name](r) for r in runs) if math.isfinite(v)]
        if not values:
            return NAN
        return max(values) if name == "memory_mb" else fmean(values)

    def forgetting(self, metric: str) -> float:
        """Return the loss since each test's best earlier step, mean over tests and runs; nan with one step."""
        losses = [loss for run in self.runs if math.isfinite(loss := _forgetting(run, metric))]
        return fmean(losses) if losses else NAN


FINISHED = 0.5  # share of the planned training steps below which a run is marked unfinished and not ranked
COSTS = {
    "latency_ms": lambda r: r.latency_ms,
    "fit_seconds": lambda r: r.seconds.get("fit", NAN),
    "fit_cpu_seconds": lambda r: r.cpu_seconds.get("fit", NAN),
    "memory_mb": lambda r: r.memory.get("peak", NAN) / 2**20,
    "model_mb": lambda r: r.memory.get("model", NAN) / 2**20,
}


def fastest(entries: Sequence[Entry]) -> Entry | None:
    """Return the entry with the lowest latency.

    None where its range overlaps another's or is not known, and where they ran with different engines.
    """
    if len({next(iter(e.engines), "") for e in entries}) > 1:
        return None
    ranges = {e.name: e.latency_range for e in entries}
    known = {name: found for name, found in ranges.items() if found is not None}
    if len(known) < len(entries) or not known:
        return None
    best = min(entries, key=lambda entry: entry.cost("latency_ms"))
    others = [low for name, (low, _) in known.items() if name != best.name]
    return best if all(known[best.name][1] < low for low in others) else None


def engine_of(run: RunResult) -> str:
    """Return the engine of a run's backbones; earlier versions do not state it where it was torch."""
    return str(run.environment.get("engine") or "torch")


def is_changed(run: RunResult, test: str) -> bool:
    """Return whether a test's images were corrupted, so that its number is not one of the category."""
    return run.spec.setting == "shifted" and corruption_of(test) is not None


def last_scores(run: RunResult) -> list[Score]:
    """Return a run's scores of its last step."""
    last = max((s.step for s in run.scores), default=0)
    return [s for s in run.scores if s.step == last]


def _forgetting(run: RunResult, metric: str) -> float:
    """Return the mean over tests of (best value at an earlier step) - (value at the last step)."""
    by_test: dict[str, dict[int, float]] = {}
    for row in run.rows:
        if row.metric == metric and math.isfinite(row.value):
            by_test.setdefault(row.test, {})[row.step] = row.value
    last = max((r.step for r in run.rows), default=0)
    both = [steps for steps in by_test.values() if last in steps and len(steps) > 1]
    return fmean(max(v for s, v in steps.items() if s < last) - steps[last] for steps in both) if both else NAN


def _mad(cells: Mapping[str, Mapping[str, Mapping[int, float]]]) -> dict[str, dict[int, float]]:
    """Return the mean of the seven metrics by category and seed, where all are present."""
    if not all(metric in cells for metric in MAD_OF):
        return {}
    found: dict[str, dict[int, float]] = {}
    for category, seeds in cells[MAD_OF[0]].items():
        for seed in seeds:
            values = [cells[metric].get(category, {}).get(seed, NAN) for metric in MAD_OF]
            if all(map(math.isfinite, values)):
                found.setdefault(category, {})[seed] = fmean(values)
    return found
