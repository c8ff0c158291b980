"""Groups of runs that are comparable (same data, setting and protocol), and their averages.

A run's numbers are those of its last step. A detector's number is the mean over seeds, then over categories. Where a
detector lacks a category that others have, its mean is over fewer and says so; nothing is imputed. ``mad`` is the mean
of seven metrics (mAD of ADer, DiAD and MambaAD), where a run has all seven. Tests under corruptions (``shifted``) are
kept apart: a number is always of the unchanged images.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from statistics import fmean, stdev
from typing import Any, NamedTuple

from iadbe.files import layout
from iadbe.results.entry import MAD, NAN, Cells, Entry
from iadbe.results.names import data_title, dataset_name, detector_name, is_own_data, setting_name, shortened
from iadbe.results.run_cases import CaseSource, cases_of
from iadbe.settings.shifted import STRENGTHS
from iadbe.types import RunResult, RunSpec


class Mean(NamedTuple):
    """A detector's mean over seeds and categories."""

    value: float  # nan: no value
    std: float = NAN  # standard deviation over seeds of the mean over categories; nan for one seed
    seeds: int = 0
    categories: int = 0
    of: int = 0  # categories in which any detector has a value
    unfinished: bool = False  # training ended far too early: see :attr:`iadbe.results.entry.Entry.unfinished`

    @property
    def complete(self) -> bool:
        """Return whether all categories are there."""
        return self.categories == self.of > 0

    @property
    def ranked(self) -> bool:
        """Return whether the mean may be ranked: all categories are there and training was not cut short."""
        return self.complete and not self.unfinished


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared in one table."""

    dataset: str
    setting: str  # "few_shot(k=4)"
    protocol: str
    data: str  # digest of the data
    entries: tuple[Entry, ...]
    ambiguous: bool = False  # another comparison has the same dataset, setting and protocol, on other data
    name: str = ""  # of the data, for people: one's own folder, or the dataset
    runs: tuple[RunResult, ...] = ()  # all that were given, also failed and outdated ones

    @property
    def title(self) -> str:
        """Return one line on what is compared."""
        return f"{self.name or self.dataset}, {self.setting}, protocol {self.protocol}"

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
            f"{'all detectors' if len(names) == every else shortened(names)}: {note}"
            for note, names in detectors.items()
        )

    @cached_property
    def cache(self) -> dict[tuple[Any, ...], Any]:
        """Values computed before; the runs never change."""
        return {}

    def mean(self, entry: Entry, metric: str) -> Mean:
        """Return a detector's mean over categories and seeds."""
        key = ("mean", id(entry), metric)
        if key not in self.cache:
            found = _mean(entry.cells.get(metric, {}), len(self.categories(metric)))
            self.cache[key] = found._replace(unfinished=entry.unfinished)
        mean: Mean = self.cache[key]
        return mean

    def mean_under(self, entry: Entry, metric: str, changes: Sequence[tuple[str, int]]) -> Mean:
        """Return a detector's mean over corruptions, categories and seeds; a corrupted category counts once."""

        def cells(of: Entry) -> Cells:
            found = ((change, of.changed.get(change, {}).get(metric, {})) for change in changes)
            return {f"{name}, {kind} {n}": seeds for (kind, n), some in found for name, seeds in some.items()}

        found = _mean(cells(entry), len({name for e in self.entries for name in cells(e)}))
        return found._replace(unfinished=entry.unfinished)

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


def compare(results: Iterable[RunResult], case_source: CaseSource = cases_of) -> tuple[Comparison, ...]:
    """Group runs into comparisons, sorted by dataset, setting and protocol; numbers in names sort by value.

    ``case_source`` gives the image scores of a run; by default those that it holds.
    Runs that failed for lack of something on their machine are left out: that says nothing about a detector.
    """
    groups: dict[tuple[str, ...], list[RunResult]] = {}
    keys: dict[str, tuple[str, ...]] = {}  # thousands of runs have few of them
    for result in results:
        if not result.transient:
            if (alike := repr(_compared(result.spec))) not in keys:
                keys[alike] = _key(result.spec)
            groups.setdefault(keys[alike], []).append(result)
    apart = [(key, runs) for key, every in groups.items() for runs in _by_data(every)]
    heads = [key[:3] for key, _ in apart]
    names = _distinct_names(apart)
    found = []
    for (key, runs), name in zip(apart, names, strict=True):
        dataset, setting, protocol, _ = key
        data, ambiguous = runs[0].spec.data, heads.count(key[:3]) > 1
        entries = _entries(runs, case_source)
        comparison = Comparison(dataset, setting, protocol, data, entries, ambiguous, name, tuple(runs))
        found.append(([*map(layout.natural_key, (dataset, data, *key[1:]))], comparison))
    return tuple(comparison for _, comparison in sorted(found, key=lambda pair: pair[0]))


def _compared(spec: RunSpec) -> tuple[Any, ...]:
    """Return the fields that decide with which runs a run is compared."""
    versions = spec.versions.get("dataset", 1), spec.versions.get("setting", 1)
    return spec.dataset, spec.setting, spec.protocol, spec.dataset_params, spec.setting_params, versions


def _key(spec: RunSpec) -> tuple[str, ...]:
    """Return dataset, setting, protocol, and all that decides besides whether runs are comparable."""
    parts = [spec.dataset_params, spec.versions.get("dataset", 1), spec.versions.get("setting", 1)]
    identity = json.dumps(parts, sort_keys=True, default=str)
    return dataset_name(spec), setting_name(spec), spec.protocol, identity


def _by_data(results: Sequence[RunResult]) -> list[list[RunResult]]:
    """Split runs by their data: one task is never compared on different data.

    Tasks of a published dataset may come from different folders, and so may those of one's own folders of one name.
    """
    parts: dict[tuple[str, str], list[RunResult]] = {}
    for run in results:
        own = is_own_data(run.spec.dataset, run.images or {run.spec.task})
        parts.setdefault((run.data_name or run.spec.data if own else "", run.spec.data), []).append(run)
    merged: list[tuple[str, dict[str, str], list[RunResult]]] = []  # data, digest by task, runs
    for (data_name, digest), runs in sorted(parts.items(), key=lambda item: (-len(item[1]), item[0])):
        tasks = {r.spec.task: digest for r in runs}
        for other, digests, together in merged:
            if other == data_name and all(digests.get(task, digest) == digest for task in tasks):
                digests.update(tasks)
                together.extend(runs)
                break
        else:
            merged.append((data_name, tasks, list(runs)))
    return [runs for _, _, runs in merged]


def _distinct_names(groups: Sequence[tuple[tuple[str, ...], Sequence[RunResult]]]) -> list[str]:
    """Return the name of each group's data; equal ones get the folder, the parameters or the digest added."""
    names = [data_title(runs[-1]) for _, runs in groups]
    folders = [runs[-1].data_name for _, runs in groups]
    params = [key[0].partition("(")[2].removesuffix(")") for key, _ in groups]
    digests = [f"data {runs[0].spec.data[:6]}" * bool(runs[0].spec.data) for _, runs in groups]
    for more in (folders, params, digests):
        titles = [(name, *key[1:3]) for name, (key, _) in zip(names, groups, strict=True)]
        names = [
            f"{name} ({text})" if titles.count(title) > 1 and text and text not in name else name
            for name, title, text in zip(names, titles, more, strict=True)
        ]
    return names


def _entries(results: Sequence[RunResult], case_source: CaseSource) -> tuple[Entry, ...]:
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
        name, params = detector_name(spec, siblings), spec.detector_params
        entries.append(Entry(name, spec.detector, params, tuple(well), tuple(failed), paired, case_source))
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
