"""Builds the tables of one comparison column by column: means, intervals, ranks, published numbers, footnotes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev

from iadbe.evaluation.confidence import CategoryScores, Interval
from iadbe.evaluation.intervals import score_interval
from iadbe.metric import resamplable
from iadbe.results import published
from iadbe.results.comparison import Comparison
from iadbe.results.entry import NAN, Entry
from iadbe.results.names import MANY, parameter_notes, shortened
from iadbe.results.significance import Ranks, ranks
from iadbe.results.style import Style, label, lower_is_better, number
from iadbe.results.table import Cell, Column, Table

INTERVAL_NOTE = (
    "In brackets: 95 % score intervals of a binormal model (docs/intervals.md). They hold if scores of good and of "
    "defective images are about normal with one variance."
)


@dataclass
class Footnotes:
    """Footnotes, numbered in order; equal sentences share a number."""

    marked: dict[str, str] = field(default_factory=dict)
    unmarked: list[str] = field(default_factory=list)

    def mark(self, text: str) -> str:
        return self.marked.setdefault(text, str(len(self.marked) + 1))

    def all(self) -> tuple[tuple[str, str], ...]:
        return (*((m, t) for t, m in self.marked.items()), *(("", t) for t in dict.fromkeys(self.unmarked)))


class TableBuilder:
    """Builds a table column by column, the detectors' names first."""

    def __init__(
        self, comparison: Comparison, metric: str, style: Style, reported: Sequence[str] = (), *, intervals: bool = True
    ) -> None:
        self.comparison, self.style, self.reported, self.intervals = comparison, style, reported, intervals
        self.entries = sorted_entries(comparison, metric)
        self.notes = Footnotes()
        self.columns = [Column("detector", "detector", numeric=False)]
        self.grid = [[Cell(e.name, marks=self._failures(e)) for e in self.entries]]

    def add(self, column: Column, cells: list[Cell], *, ranked: bool = True) -> None:
        self.columns.append(column)
        self.grid.append(_mark_best(column, cells) if ranked else cells)

    def add_mean(self, column: Column, metric: str) -> None:
        """Add the means over categories, and published numbers."""
        self.add(column, [self._mean(e, metric) for e in self.entries])
        self.add_reported(metric, self.comparison.categories(metric))

    def add_reported(self, metric: str, categories: Sequence[str]) -> None:
        """Add two columns, the published number and the difference from it, if any detector has one."""
        where = (self.comparison.dataset.partition("(")[0], self.comparison.setting, metric, categories)
        found = [published.find(e.detector, e.params, *where, self.reported) for e in self.entries if categories]
        if not any(found):
            return
        name, theirs, differences = self.columns[-1].name, [], []
        for own, match in zip(self.grid[-1], found, strict=True):
            delta = NAN
            if match is None:
                theirs.append(Cell())
            else:
                theirs.append(Cell(self.style.share(match.value), match.value, marks=(self.notes.mark(match.note),)))
                if match.comparable and own.value is not None and not own.marks:
                    delta = own.value - match.value
            differences.append(number_cell(delta, lambda v: self.style.share(v, signed=True)))
        self.add(Column(f"{name}_reported", "reported"), theirs, ranked=False)
        self.add(Column(f"{name}_difference", "Δ"), differences, ranked=False)

    def table(self, title: str = "", **about: str) -> Table:
        """Return the table with its footnotes."""
        if any(c.std is not None for cells in self.grid for c in cells):
            self.notes.unmarked.append(
                "± is the standard deviation over seeds (of a mean: of the mean over categories)."
            )
        if any(c.low is not None for cells in self.grid for c in cells):
            self.notes.unmarked.append(INTERVAL_NOTE)
        self.notes.unmarked += parameter_notes(self.comparison.entries)
        for entry in self.comparison.entries:
            if len(weights := {_fingerprints(r.weights) for r in entry.runs}) > 1:
                self.notes.unmarked.append(f"{entry.name} ran with {len(weights)} different sets of backbone weights.")
        remarks = self.comparison.remarks
        self.notes.unmarked += [*remarks[:MANY]] + [f"And {len(remarks) - MANY} more remarks."] * (len(remarks) > MANY)
        of = self.comparison
        about = {"dataset": of.dataset, "setting": of.setting, "protocol": of.protocol, **about}
        about |= {"data": of.data} if of.ambiguous else {}
        rows = tuple(zip(*self.grid, strict=True))
        return Table(title + of.title, tuple(self.columns), rows, self.notes.all(), about)

    def _mean(self, entry: Entry, metric: str) -> Cell:
        mean = self.comparison.mean(entry, metric)
        if not math.isfinite(mean.value):
            return Cell("failed") if entry.failed and not entry.runs else Cell()
        spread = mean.std if math.isfinite(mean.std) else None
        cases = [c for found in entry.cases.values() for c in found]
        cell = self.style.number(mean.value, spread, metric_interval(cases, metric) if self.intervals else None)
        if mean.complete:
            return cell
        lacking = [c for c in self.comparison.categories(metric) if c not in entry.cells.get(metric, {})]
        text_of = f"Mean over {mean.categories} of {mean.of} categories, so not ranked; missing: {shortened(lacking)}."
        return replace(cell, marks=(self.notes.mark(text_of),))

    def add_ranks(self, metric: str) -> None:
        """Add mean ranks with a compact letter display: detectors that share a letter do not differ significantly."""
        found = ranks_of(self.comparison, metric)
        if found is None:
            return
        ranked = {n: (r, letters) for n, r, letters in zip(found.names, found.mean, found.letters, strict=True)}
        cells = []
        for entry in self.entries:
            rank, letters = ranked.get(entry.name, (NAN, ""))
            cells.append(Cell(f"{rank:.1f} {letters}", rank) if letters else Cell())
        self.add(Column("rank", "rank", lower_is_better=True), cells, ranked=False)
        self.notes.unmarked.append(f"By {label(metric)}: {found.sentence}")

    def of_category(self, entry: Entry, metric: str, name: str) -> Cell:
        """Return the cell of one category: mean and standard deviation over seeds."""
        if not math.isfinite(value := entry.value(metric, name)):
            return Cell()
        seeds = list(entry.cells[metric][name].values())
        found = metric_interval(entry.cases.get(name, ()), metric) if self.intervals else None
        return self.style.number(value, stdev(seeds) if len(seeds) > 1 else None, found)

    def _failures(self, entry: Entry) -> tuple[str, ...]:
        if not entry.failed:
            return ()
        reasons: dict[str, list[str]] = {}
        for run in entry.failed:
            where = run.spec.task + (f" (seed {run.spec.seed})" if run.spec.seed else "")
            reasons.setdefault(run.error.strip().rstrip("."), []).append(where)
        parts = [f"{reason} [{shortened(where)}]" for reason, where in reasons.items()]
        more = f"; and {len(parts) - MANY} more reasons" if len(parts) > MANY else ""
        count = f"{len(entry.failed)} of {run_counts(entry)[1]} runs failed"
        return (self.notes.mark(f"{entry.name}: {count}: {'; '.join(parts[:MANY])}{more}."),)


def sorted_entries(comparison: Comparison, metric: str) -> list[Entry]:
    """Return the detectors, best first; then those that lack a category, then those without a value."""
    sign = 1 if lower_is_better(metric) else -1

    def place(entry: Entry) -> tuple[int, float, str]:
        mean = comparison.mean(entry, metric)
        if not math.isfinite(mean.value):
            return 2, 0.0, entry.name
        return (0 if mean.complete else 1), sign * mean.value, entry.name

    return sorted(comparison.entries, key=place)


def same_machine(comparison: Comparison) -> bool:
    """Say whether all runs were timed on the same kind of machine, so that times are comparable."""
    parts = ("processor", "device", "threads")
    runs = [r for e in comparison.entries for r in e.runs]
    return len({tuple(str(r.environment.get(p)) for p in parts) for r in runs}) <= 1


def metric_interval(cases: Sequence[CategoryScores], metric: str) -> Interval | None:
    """Return the interval of an image metric that is a function of counts, or None where there is none.

    There is none without scores, and for a metric that is not installed.
    """
    found = resamplable(metric) if cases else None
    return None if found is None else score_interval(cases, found)


def ranks_of(comparison: Comparison, metric: str) -> Ranks | None:
    """Return the detectors' ranks over categories, or None with too few detectors or categories."""
    key = ("ranks", metric)
    if metric and key not in comparison.cache:
        comparison.cache[key] = ranks(comparison, metric, lower_is_better=lower_is_better(metric))
    return comparison.cache.get(key)


def run_counts(entry: Entry) -> tuple[int, int]:
    """Return (successful, all) runs, counted by task and seed."""
    well, failed = (len({(r.spec.task, r.spec.seed) for r in runs}) for runs in (entry.runs, entry.failed))
    return well, well + failed


def number_cell(value: float, write: Callable[[float], str]) -> Cell:
    """Return the cell of a number, empty for nan."""
    return Cell(write(value), value) if math.isfinite(value) else Cell()


def _mark_best(column: Column, cells: list[Cell]) -> list[Cell]:
    """Mark the best of two or more values; a cell with a footnote, a mean over fewer categories, does not count."""
    candidates = {i: number(c.text) for i, c in enumerate(cells) if c.value is not None and not c.marks}
    if len(candidates) < 2:
        return cells
    best = (min if column.lower_is_better else max)(candidates.values())
    return [replace(c, best=candidates.get(i) == best) for i, c in enumerate(cells)]


def _fingerprints(weights: str) -> tuple[str, ...]:
    """Return the fingerprints in a description of weights: names and sources of equal weights may differ."""
    return tuple(re.findall(r": (\S+) from ", weights)) or (weights,)
