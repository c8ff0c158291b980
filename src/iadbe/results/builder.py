"""Builds the tables of one comparison column by column: means, intervals, ranks, published numbers, footnotes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev

import numpy as np

from iadbe.evaluation.confidence import CategoryScores, Interval, bootstrap_all
from iadbe.evaluation.intervals import score_interval
from iadbe.metric import resamplable
from iadbe.results import published
from iadbe.results.comparison import Comparison
from iadbe.results.entry import FINISHED, MAD, MAD_OF, NAN, Entry, fastest
from iadbe.results.names import MANY, foreign_note, grouped, parameter_notes, published_counts, shortened
from iadbe.results.significance import Ranks, ranks
from iadbe.results.style import Style, label, lower_is_better, number
from iadbe.results.table import Cell, Column, Table
from iadbe.types import RunResult

INTERVAL_NOTE = (
    "In brackets: 95 % score intervals of a binormal model (docs/intervals.md). They hold if scores of good and of "
    "defective images are about normal with one variance."
)


LATENCY = "latency_ms"
MAD_NOTE = f"mAD is the mean of {', '.join(map(label, MAD_OF[:-1]))} and {label(MAD_OF[-1])}."


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
        self.grid = [[Cell(e.name, marks=(*self._foreign(e), *self._failures(e))) for e in self.entries]]

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
        for entry, own, match in zip(self.entries, self.grid[-1], found, strict=True):
            delta = NAN
            if match is None:
                theirs.append(Cell())
            else:
                theirs.append(Cell(self.style.share(match.value), match.value, marks=(self.notes.mark(match.note),)))
                if match.comparable and own.value is not None and not own.marks:
                    delta = own.value - match.value
            cell = number_cell(delta, lambda v: self.style.share(v, signed=True))
            if cell.value is not None and (part := partial_data(self.comparison, entry, categories)):
                cell = replace(cell, marks=(self.notes.mark(f"{entry.name} ran on {part}."),))
            differences.append(cell)
        self.add(Column(f"{name}_reported", "reported"), theirs, ranked=False)
        self.add(Column(f"{name}_difference", "Δ"), differences, ranked=False)

    def table(self, title: str = "", **about: str) -> Table:
        """Return the table with its footnotes."""
        if any(c.std is not None for cells in self.grid for c in cells):
            self.notes.unmarked.append(
                "± is the standard deviation over seeds (of a mean: of the mean over categories)."
            )
        columns = zip(self.columns, self.grid, strict=True)
        having = {column.name for column, cells in columns if any(c.low is not None for c in cells)}
        if having - {LATENCY}:
            self.notes.unmarked.append(INTERVAL_NOTE)
        if LATENCY in having:
            self.notes.unmarked.append("ms: median for one image alone; in brackets the range over runs and repeats.")
        if any(c.name == MAD for c in self.columns) or about.get("metric") == MAD:
            self.notes.unmarked.append(MAD_NOTE)
        self.notes.unmarked += parameter_notes(self.comparison.entries)
        for entry in self.comparison.entries:
            if len(weights := {_fingerprints(r.weights) for r in entry.runs}) > 1:
                self.notes.unmarked.append(f"{entry.name} ran with {len(weights)} different sets of backbone weights.")
        remarks = self.comparison.remarks
        self.notes.unmarked += [*remarks[:MANY]] + [f"And {len(remarks) - MANY} more remarks."] * (len(remarks) > MANY)
        of = self.comparison
        if self.reported and not any(c.name.endswith("_reported") for c in self.columns):
            text = f"Reported: nothing is published for these detectors on {of.dataset} in the setting {of.setting}"
            self.notes.unmarked.append(f"{text} ({len(self.reported)} publications).")
        about = {"dataset": of.dataset, "setting": of.setting, "protocol": of.protocol, **about}
        about |= {"data": of.data} if of.ambiguous else {}
        rows = tuple(zip(*self.grid, strict=True))
        return Table(title + of.title, tuple(self.columns), rows, self.notes.all(), about)

    def _mean(self, entry: Entry, metric: str) -> Cell:
        mean = self.comparison.mean(entry, metric)
        if not math.isfinite(mean.value):
            return Cell("failed") if entry.failed and not entry.runs else Cell()
        std = mean.std if math.isfinite(mean.std) else None
        between = entry_interval(self.comparison, entry, metric) if self.intervals else None
        cell = self.marked(self.style.number(mean.value, std, between), entry)
        if mean.complete:
            return cell
        lacking = [c for c in self.comparison.categories(metric) if c not in entry.cells.get(metric, {})]
        text_of = f"Mean over {mean.categories} of {mean.of} categories, so not ranked; missing: {shortened(lacking)}."
        return replace(cell, marks=(*cell.marks, self.notes.mark(text_of)))

    def marked(self, cell: Cell, entry: Entry) -> Cell:
        """Mark a number of a detector whose training is unfinished, so that it is not ranked."""
        if cell.value is None or not entry.unfinished:
            return cell
        text = f"unfinished: less than {FINISHED:.0%} of the planned training steps, so not ranked."
        return replace(cell, marks=(self.notes.mark(text.replace("%", " %")),))

    def add_steps(self) -> None:
        """Add the training steps, done of planned, if any detector did not do all of them."""
        if any(e.progress < 1 for e in self.entries):
            cells = [steps_cell(e) for e in self.entries]
            self.add(Column("steps", "training steps"), cells, ranked=False)

    def add_cost(self, column: Column) -> None:
        """Add a cost; the best is marked where machines are equal, and of the latency only where no ranges overlap."""
        cells = [number_cell(e.cost(column.name), self.style.cost) for e in self.entries]
        if all(c.value is None for c in cells):
            return
        ranked = same_machine(self.comparison)
        if column.name == LATENCY:
            finished = [e for e in self.entries if not e.unfinished and math.isfinite(e.cost("latency_ms"))]
            ranked = ranked and fastest(finished) is not None
            cells = [self._latency(c, e) for c, e in zip(cells, self.entries, strict=True)]
            if {name for e in self.entries for name in e.engines} - {"torch"}:
                cells = [self._with_engine(c, e) for c, e in zip(cells, self.entries, strict=True)]
        self.add(column, [self.marked(c, e) for c, e in zip(cells, self.entries, strict=True)], ranked=ranked)

    def _latency(self, cell: Cell, entry: Entry) -> Cell:
        if cell.value is None or (found := entry.latency_range) is None:
            return cell
        low, high = found
        text = f"{cell.text} ({self.style.cost(low)}–{self.style.cost(high)})"
        return replace(cell, text=text, low=low, high=high)

    def _with_engine(self, cell: Cell, entry: Entry) -> Cell:
        """Mark a latency with the engine of the backbone that it was measured with."""
        if cell.value is None:
            return cell
        engine, *others = entry.engines
        left_out = f", without {' and '.join(f'{entry.engines[o]} of {o}' for o in others)}" if others else ""
        runs = f" ({entry.engines[engine]} of {sum(entry.engines.values())} runs{left_out})" if others else ""
        return replace(cell, marks=(*cell.marks, self.notes.mark(f"Latency with the engine {engine}{runs}.")))

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
        found = category_interval(self.comparison, entry, metric, name) if self.intervals else None
        return self.marked(self.style.number(value, stdev(seeds) if len(seeds) > 1 else None, found), entry)

    def _foreign(self, entry: Entry) -> tuple[str, ...]:
        note = foreign_note(entry.detector)
        return (self.notes.mark(note),) if note else ()

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
        return (0 if mean.ranked else 1), sign * mean.value, entry.name

    return sorted(comparison.entries, key=place)


def same_machine(comparison: Comparison) -> bool:
    """Return whether all runs were timed on the same kind of machine, so that times are comparable."""
    if ("same_machine",) not in comparison.cache:
        comparison.cache["same_machine",] = ran_alike([r for e in comparison.entries for r in e.runs])
    return bool(comparison.cache["same_machine",])


def ran_alike(runs: Sequence[RunResult]) -> bool:
    """Return whether runs had the same kind of processor and device and as many threads."""
    return len({tuple(str(r.environment.get(p)) for p in ("processor", "device", "threads")) for r in runs}) <= 1


def metric_interval(cases: Sequence[CategoryScores], metric: str) -> Interval | None:
    """Return the interval of an image metric that is a function of counts, or None where there is none.

    There is none without scores, and for a metric that is not installed.
    """
    found = resamplable(metric) if cases else None
    return None if found is None else score_interval(cases, found)


def entry_interval(comparison: Comparison, entry: Entry, metric: str) -> Interval | None:
    """Return the interval of a detector's mean over categories; see :func:`metric_interval`. It is computed once."""
    key = ("interval", entry.name, metric)
    if key not in comparison.cache:
        comparison.cache[key] = metric_interval([c for found in entry.cases.values() for c in found], metric)
    return comparison.cache[key]


def category_interval(comparison: Comparison, entry: Entry, metric: str, category: str) -> Interval | None:
    """Return the interval of a detector in one category; see :func:`metric_interval`. It is computed once."""
    key = ("interval", entry.name, metric, category)
    if key not in comparison.cache:
        comparison.cache[key] = metric_interval(entry.cases.get(category, ()), metric)
    return comparison.cache[key]


def entry_samples(
    comparison: Comparison, entry: Entry, metric: str, check: Callable[[], None] = lambda: None
) -> np.ndarray | None:
    """Return bootstrap values of a detector's mean, None where :func:`metric_interval` is; they are computed once.

    Those of the detectors that are ranked beside it are computed with it, because they share their draws. ``check`` is
    called now and then; it may raise.
    """
    if (definition := resamplable(metric)) is None:
        return None
    known = comparison.cache
    if ("bootstrap", entry.name, metric) not in known:
        beside = [e for e in comparison.entries if e is entry or comparison.mean(e, metric).ranked]
        entries = [e for e in beside if ("bootstrap", e.name, metric) not in known]
        cases = [[c for found in e.cases.values() for c in found] for e in entries]
        values = bootstrap_all(cases, metric=definition, check=check)
        for one, own, found in zip(entries, cases, values, strict=True):
            known["bootstrap", one.name, metric] = found if own else None
    samples: np.ndarray | None = known["bootstrap", entry.name, metric]
    return samples


def ranks_of(comparison: Comparison, metric: str) -> Ranks | None:
    """Return the detectors' ranks over categories, or None with too few detectors or categories."""
    key = ("ranks", metric)
    if metric and key not in comparison.cache:
        comparison.cache[key] = ranks(comparison, metric, lower_is_better=lower_is_better(metric))
    return comparison.cache.get(key)


def partial_data(comparison: Comparison, entry: Entry, categories: Sequence[str]) -> str:
    """Return "110 of 1 344 images" where a detector ran on a part of a dataset's published images, or on more of them.

    Nothing where it ran on as many as were published, or where that is not known.

    Runs that do not state their images are judged by their defective test images, in the setting vanilla.
    """
    counts = published_counts(comparison.dataset.partition("(")[0])
    tested = [c for c in entry.images if c in categories] or list(entry.images)
    if tested and all(c in counts for c in tested):
        have, of = sum(entry.images[c] for c in tested), sum(sum(counts[c]) for c in tested)
        return _part(have, of, "images")
    cases = {c: found[0] for c, found in entry.cases.items() if c in categories}
    if not tested and cases and comparison.setting == "vanilla" and all(c in counts for c in cases):
        have, of = sum(int(found.truth.sum()) for found in cases.values()), sum(counts[c][-1] for c in cases)
        return _part(have, of, "defective test images")
    return ""


def _part(have: int, of: int, what: str) -> str:
    if have > of:
        return f"{grouped(have)} {what}, more than the {grouped(of)} published ones"
    return f"{grouped(have)} of {grouped(of)} {what}" if have < of else ""


def run_counts(entry: Entry) -> tuple[int, int]:
    """Return (successful, all) runs, counted by task and seed."""
    well, failed = (len({(r.spec.task, r.spec.seed) for r in runs}) for runs in (entry.runs, entry.failed))
    return well, well + failed


def number_cell(value: float, write: Callable[[float], str]) -> Cell:
    """Return the cell of a number, empty for nan."""
    return Cell(write(value), value) if math.isfinite(value) else Cell()


def steps_cell(entry: Entry) -> Cell:
    """Return the training steps of the least trained run, "9 of 4 800, unfinished"; empty where they are not known."""
    if entry.steps is None:
        return Cell()
    done, planned = entry.steps
    text = grouped(done) if done >= planned else f"{grouped(done)} of {grouped(planned)}"
    return Cell(f"{text}, unfinished" if entry.unfinished else text, entry.progress)


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
