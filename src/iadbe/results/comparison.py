"""Groups of runs that are comparable (same data, setting and protocol), and their averages.

A run's numbers are those of its last step. A detector's number is the mean over seeds, then over categories. Where a
detector lacks a category that others have, its mean is over fewer and says so; nothing is imputed. ``mad`` is the mean
of seven metrics (mAD of ADer, DiAD and MambaAD), where a run has all seven. Tests under corruptions (``shifted``) are
kept apart: a number is always of the unchanged images.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, NamedTuple

from iadbe import registry
from iadbe.errors import IadbeError
from iadbe.evaluation.confidence import CategoryScores, category_scores
from iadbe.files import layout
from iadbe.settings.shifted import STRENGTHS, corruption_of
from iadbe.types import Row, RunResult, RunSpec, Score

NAN = math.nan
MANY = 4  # items listed in a sentence
MAD = "mad"
MAD_OF = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_f1max", "pixel_aupro")
Cells = Mapping[str, Mapping[int, float]]  # values by category and seed


class Mean(NamedTuple):
    """A detector's mean over seeds and categories."""

    value: float  # nan: no value
    std: float = NAN  # standard deviation over seeds of the mean over categories; nan for one seed
    seeds: int = 0
    categories: int = 0
    of: int = 0  # categories in which any detector has a value

    @property
    def complete(self) -> bool:
        """Say whether all categories are there."""
        return self.categories == self.of > 0


@dataclass(frozen=True)
class Entry:
    """A detector with one set of parameters, and its runs."""

    name: str  # "patchcore"; "patchcore(coreset=0.01)" where there are several
    detector: str
    params: Mapping[str, Any]
    runs: tuple[RunResult, ...]  # without an error
    failed: tuple[RunResult, ...]
    task_in_name: bool = False  # the task is part of the category: several tasks have a test of the same name

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
        by_category: dict[str, dict[int, list[Score]]] = {}
        for run in self.runs:
            for score in (s for s in last_scores(run) if not is_changed(run, s.test)):
                by_category.setdefault(self.category(run, score.test), {}).setdefault(run.spec.seed, []).append(score)
        found = {}
        for name, seeds in sorted(by_category.items()):
            tables = [{s.sample: s for s in scores} for scores in seeds.values()]
            groups = [tables] if all(t.keys() == tables[0].keys() for t in tables) else [[t] for t in tables]
            found[name] = [_category_scores(g) for g in groups]
        return found

    def value(self, metric: str, wanted: str) -> float:
        """Return the mean over seeds in one category, or nan."""
        seeds = self.cells.get(metric, {}).get(wanted, {})
        return fmean(seeds.values()) if seeds else NAN

    def cost(self, name: str) -> float:
        """Return milliseconds per image, fit seconds, megabytes of the model (means) or peak megabytes (maximum)."""
        values = [v for v in (COSTS[name](r) for r in self.runs) if math.isfinite(v)]
        if not values:
            return NAN
        return max(values) if name == "memory_mb" else fmean(values)

    def forgetting(self, metric: str) -> float:
        """Return the loss since each test's best earlier step, mean over tests and runs; nan with one step."""
        losses = [loss for run in self.runs if math.isfinite(loss := _forgetting(run, metric))]
        return fmean(losses) if losses else NAN


COSTS = {
    "latency_ms": lambda r: r.latency_ms,
    "fit_seconds": lambda r: r.seconds.get("fit", NAN),
    "memory_mb": lambda r: r.memory.get("peak", NAN) / 2**20,
    "model_mb": lambda r: r.memory.get("model", NAN) / 2**20,
}


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared in one table."""

    dataset: str
    setting: str  # "few_shot(k=4)"
    protocol: str
    data: str  # digest of the data
    entries: tuple[Entry, ...]
    ambiguous: bool = False  # another comparison has the same title, on other data

    @property
    def title(self) -> str:
        """Return one line on what is compared."""
        data = f" (data {self.data[:6]})" if self.ambiguous and self.data else ""
        return f"{self.dataset}{data}, {self.setting}, protocol {self.protocol}"

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of the runs in their order, then mAD where there is any."""
        found = dict.fromkeys(m for e in self.entries for r in e.runs for m in r.spec.metrics or e.cells)
        return (*(m for m in found if m != MAD), *[MAD] * any(MAD in e.cells for e in self.entries))

    def categories(self, metric: str) -> tuple[str, ...]:
        """Return the categories in which any detector has a value, sorted."""
        return tuple(sorted({c for e in self.entries for c in e.cells.get(metric, {})}))

    @cached_property
    def changes(self) -> tuple[tuple[str, int], ...]:
        """The corruptions under which any detector was tested, kind and strength, in the setting's order."""
        kinds = list(STRENGTHS)
        found = {change for entry in self.entries for change in entry.changed}
        return tuple(sorted(found, key=lambda change: (kinds.index(change[0]), change[1])))

    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """The runs' notes, each with the detectors that it is about."""
        detectors: dict[str, list[str]] = {}
        for entry in self.entries:
            for note in dict.fromkeys(n for run in entry.runs for n in run.notes):
                detectors.setdefault(note, []).append(entry.name)
        every = len(self.entries) if len(self.entries) > 1 else 0
        return tuple(
            f"{'all detectors' if len(who) == every else shortened(who)}: {note}" for note, who in detectors.items()
        )

    @cached_property
    def cache(self) -> dict[tuple[Any, ...], Any]:
        """Values computed before; the runs never change."""
        return {}

    def mean(self, entry: Entry, metric: str) -> Mean:
        """Return a detector's mean over categories and seeds."""
        key = ("mean", id(entry), metric)
        if key not in self.cache:
            self.cache[key] = _mean(entry.cells.get(metric, {}), len(self.categories(metric)))
        found: Mean = self.cache[key]
        return found

    def mean_under(self, entry: Entry, metric: str, changes: Sequence[tuple[str, int]]) -> Mean:
        """Return a detector's mean over corruptions, categories and seeds; a corrupted category counts once."""

        def cells(of: Entry) -> Cells:
            found = ((change, of.changed.get(change, {}).get(metric, {})) for change in changes)
            return {f"{name}, {kind} {n}": seeds for (kind, n), some in found for name, seeds in some.items()}

        return _mean(cells(entry), len({name for e in self.entries for name in cells(e)}))

    def drop(self, entry: Entry, metric: str, changes: Sequence[tuple[str, int]]) -> float:
        """Return a detector's mean without corruptions minus that under them, or nan where one is incomplete."""
        plain, under = self.mean(entry, metric), self.mean_under(entry, metric, changes)
        return plain.value - under.value if plain.complete and under.complete else NAN


def _mean(cells: Cells, of: int) -> Mean:
    """Return the mean over categories and seeds; ``of`` is the number of categories of any detector."""
    if not cells:
        return Mean(NAN, of=of)
    value = fmean(fmean(seeds.values()) for seeds in cells.values())
    seeds = sorted({s for by_seed in cells.values() for s in by_seed})
    whole = [fmean(by_seed[s] for by_seed in cells.values()) for s in seeds if all(s in b for b in cells.values())]
    return Mean(value, stdev(whole) if len(whole) > 1 else NAN, len(seeds), len(cells), of)


def _category_scores(tables: Sequence[Mapping[str, Score]]) -> CategoryScores:
    """Return the scores of one category from one table (id -> score) per seed."""
    images = ((i, s.defect != "good", [t[i].score for t in tables]) for i, s in tables[0].items())
    return category_scores(images, {i: s.group for i, s in tables[0].items() if s.group})


def shortened(names: Sequence[str]) -> str:
    """Return the first names and the number of the others."""
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


def is_changed(run: RunResult, test: str) -> bool:
    """Say whether a test's images were corrupted, so that its number is not one of the category."""
    return run.spec.setting == "shifted" and corruption_of(test) is not None


def last_scores(run: RunResult) -> list[Score]:
    """Return a run's scores of its last step."""
    last = max((s.step for s in run.scores), default=0)
    return [s for s in run.scores if s.step == last]


def compare(results: Iterable[RunResult]) -> tuple[Comparison, ...]:
    """Group runs into comparisons, sorted by dataset, setting and protocol; numbers in names sort by value."""
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    for result in results:
        groups.setdefault(_key(result.spec), []).append(result)
    names = [(key[0], *key[2:4]) for key in groups]
    found = []
    for key in sorted(groups, key=lambda key: [*map(layout.natural_key, key)]):
        dataset, data, setting, protocol, _ = key
        ambiguous = names.count((dataset, setting, protocol)) > 1
        found.append(Comparison(dataset, setting, protocol, data, _entries(groups[key]), ambiguous))
    return tuple(found)


def setting_name(spec: RunSpec) -> str:
    """Return the setting with its main number and what is not a default: ``few_shot(k=4, others=yes)``."""
    return spec.setting + _bracket(_not_default("settings", spec.setting, spec.setting_params, number=True))


def dataset_name(spec: RunSpec) -> str:
    """Return the dataset with parameters that are not defaults: ``toy(count=80)``."""
    return spec.dataset + _bracket(_not_default("datasets", spec.dataset, spec.dataset_params))


def changed_params(entry: Entry) -> dict[str, Any]:
    """Return the parameters that are not the detector's defaults."""
    return _not_default("detectors", entry.detector, entry.params)


def parameter_notes(entries: Sequence[Entry]) -> list[str]:
    """Return sentences on parameters that are not defaults, one for all detectors with the same."""
    alike: dict[str, list[str]] = {}
    for entry in entries:
        told = {k: v for k, v in sorted(changed_params(entry).items()) if f"{k}=" not in entry.name}
        if told:
            alike.setdefault(", ".join(f"{k}={format_value(v)}" for k, v in told.items()), []).append(entry.name)
    sentences = []
    for text, names in alike.items():
        who = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        whose = "its" if len(names) == 1 else "their"
        sentences.append(f"{who} ran with {text}; {whose} other parameters are the defaults.")
    return sentences


def _not_default(shelf: str, name: str, params: Mapping[str, Any], number: bool = False) -> dict[str, Any]:
    """Return what differs from the card, and with ``number`` a numeric first parameter; without a card, all."""
    try:
        known = registry.card(shelf, name).parameters
    except (IadbeError, ImportError, OSError, SyntaxError):
        known = ()
    defaults = {p.name: format_value(p.default) for p in known}
    main = known[0].name if number and known and type(known[0].default) in (int, float) else ""
    return {k: v for k, v in params.items() if k == main or defaults.get(k) != format_value(v)}


def _key(spec: RunSpec) -> tuple[str, ...]:
    parts = [spec.dataset_params, spec.versions.get("dataset", 1), spec.versions.get("setting", 1)]
    identity = json.dumps(parts, sort_keys=True, default=str)
    return dataset_name(spec), spec.data, setting_name(spec), spec.protocol, identity


def _entries(results: Sequence[RunResult]) -> tuple[Entry, ...]:
    newest = _newest_metrics(results)
    tasks = {(row.test, r.spec.task) for r in results for row in r.rows}
    paired = len({test for test, _ in tasks}) < len(tasks)
    variants: dict[str, list[RunResult]] = {}
    for result in results:
        spec = result.spec
        identity = [spec.detector, spec.detector_params, spec.versions.get("detector", 1)]
        variants.setdefault(json.dumps(identity, sort_keys=True, default=str), []).append(result)
    entries = []
    for runs in variants.values():
        siblings = [v[0].spec for v in variants.values() if v[0].spec.detector == runs[0].spec.detector]
        well, failed = _latest(runs)
        well = [_current(r, newest) for r in well]
        spec = runs[0].spec
        name, params = _name(spec, siblings), spec.detector_params
        entries.append(Entry(name, spec.detector, params, tuple(well), tuple(failed), paired))
    return tuple(sorted(entries, key=lambda e: e.name))


def _latest(runs: Sequence[RunResult]) -> tuple[list[RunResult], list[RunResult]]:
    """Return (successful runs, failed runs); of a run that was repeated, the last outcome counts."""
    well: dict[tuple[str, int], list[RunResult]] = {}
    failed: dict[tuple[str, int], RunResult] = {}
    for run in sorted(runs, key=lambda r: str(r.environment.get("date", ""))):
        place = (run.spec.task, run.spec.seed)
        if run.error:
            failed[place] = run
        else:
            well.setdefault(place, []).append(run)  # several: with different metrics
    return [r for rs in well.values() for r in rs], [r for place, r in failed.items() if place not in well]


def _newest_metrics(results: Sequence[RunResult]) -> dict[str, int]:
    newest: dict[str, int] = {}
    for result in results:
        for name, version in result.spec.versions.items():
            newest[name] = max(newest.get(name, version), version)
    return newest


def _current(result: RunResult, newest: Mapping[str, int]) -> RunResult:
    """Drop rows of a metric that another run has in a newer version: they are not comparable."""
    known = result.spec.versions
    kept = tuple(r for r in result.rows if known.get(r.metric, 0) == newest.get(r.metric, 0))
    if len(kept) == len(result.rows):
        return result

    return replace(result, rows=kept)


def _name(spec: RunSpec, siblings: Sequence[RunSpec]) -> str:
    """Name a detector with the parameters in which it differs from its siblings."""
    keys = sorted({k for s in siblings for k in s.detector_params})
    telling = [k for k in keys if len({format_value(s.detector_params.get(k)) for s in siblings}) > 1]
    params = {k: spec.detector_params[k] for k in telling if k in spec.detector_params}
    versions = {s.versions.get("detector", 1) for s in siblings}
    if len(versions) > 1:
        params["version"] = spec.versions.get("detector", 1)
    return spec.detector + _bracket(params)


def _bracket(params: Mapping[str, Any]) -> str:
    text = ", ".join(f"{k}={format_value(v)}" for k, v in sorted(params.items()) if v is not None)
    return f"({text})" if text else ""


def format_value(value: Any) -> str:
    """Format a parameter's value; of a file, its name."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, (list, tuple)):
        return "+".join(format_value(v) for v in value)
    text = str(value)
    return text.removeprefix("file:").partition("#")[0] if text.startswith("file:") else text


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
