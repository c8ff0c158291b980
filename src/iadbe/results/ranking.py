"""From results to tables: detectors ranked by their means, or category by category, with published numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from statistics import stdev

import numpy as np

from iadbe import registry
from iadbe.errors import IadbeError
from iadbe.evaluation.confidence import CategoryScores, Interval, auroc_interval, bootstrap, percentile_interval
from iadbe.metric import EXACT, CountMetric, parse
from iadbe.results import published
from iadbe.results.comparison import (
    MAD,
    MANY,
    NAN,
    Comparison,
    Entry,
    compare,
    is_changed,
    parameter_notes,
    setting_name,
    shortened,
)
from iadbe.results.significance import Ranks, ranks
from iadbe.results.table import Cell, Column, Table
from iadbe.seeds import run_id
from iadbe.types import RunResult

NAMES = {"auroc": "AUROC", "ap": "AP", "f1max": "F1max", "aupro": "AUPRO", "spro": "sPRO", "segf1": "SegF1"}
NAMES |= {"aupimo": "AUPIMO", "iou_max": "IoU-max", "mf1": "mF1", "macc": "mAcc", "miou": "mIoU"}
NAMES |= {"overkill": "FPR (overkill) at escape", "escape": "FNR (escape) at overkill"}
SHOWN_DEFAULTS = {"overkill": "0%", "escape": "5%"}  # parameters that are shown even if they are the defaults
COST_COLUMNS = (
    Column("latency_ms", "ms", lower_is_better=True),
    Column("fit_seconds", "fit s", lower_is_better=True),
    Column("memory_mb", "MB", lower_is_better=True),
)
INTERVAL_NOTE = (
    "In brackets: 95 % intervals from 1000 bootstrap samples of the test images, good and defective ones apart."
)

CHANGES_NOTE = "Numbers are of unchanged images; lost is the drop under corruptions, mean over all of them."


@dataclass(frozen=True, slots=True)
class Style:
    """Number format: shares of 1 with three digits, or percent with one."""

    percent: bool = False
    digits: int | None = None

    def share(self, value: float, *, signed: bool = False) -> str:
        """Format a number in [0, 1], or a difference of two."""
        digits = self.digits if self.digits is not None else (1 if self.percent else 3)
        text = f"{value * (100 if self.percent else 1):{'+' if signed else ''}.{digits}f}"
        return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")

    def number(self, value: float, std: float | None, between: Interval | None) -> Cell:
        """Return the cell of a number in [0, 1], with standard deviation over seeds and interval where known."""
        text = self.share(value)
        if std is not None:
            text += f" ± {self.share(std)}"
        if between is None:
            return Cell(text, value, std)
        ends = f" ({self.share(between.low)}–{self.share(between.high)})"
        return Cell(text + ends, value, std, between.low, between.high)

    def cost(self, value: float) -> str:
        """Format milliseconds, seconds or megabytes with about three significant digits."""
        return f"{value:.2f}" if value < 9.995 else f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


def number(text: str) -> float:
    """Return the value of a formatted number, so that ties are ties of what is shown."""
    return float(text.partition(" ")[0].replace("−", "-"))


def label(metric: str) -> str:
    """Return a row's name for tables: ``pixel_aupro@5%`` is pixel AUPRO@5%."""
    if metric == MAD:
        return "mAD"
    level, _, rest = metric.partition("_")
    plain, at, parameter = rest.partition("@")
    plain, *variants = plain.split(".") if ":" not in plain else [plain]
    if "held_out" in variants:
        return f"{level} {plain} (threshold from held-out, {parameter or SHOWN_DEFAULTS.get(plain, '')})"
    if plain in SHOWN_DEFAULTS:
        return f"{level} {NAMES[plain]} {parameter or SHOWN_DEFAULTS[plain]}"
    dialect = f" ({', '.join(variants)})" if variants else ""
    return f"{level} {NAMES.get(plain, plain)}{at}{parameter}{dialect}" if rest else metric


def lower_is_better(metric: str) -> bool:
    """Say whether lower is better, by the metric's card; a metric that is not installed counts as higher is better."""
    plain = metric.partition("_")[2].partition("@")[0]
    plain = plain if ":" in plain else plain.partition(".")[0]
    try:
        return not registry.card("metrics", plain).get("higher_is_better", True)
    except (IadbeError, ImportError, OSError):
        return False


def metric_interval(cases: Sequence[CategoryScores], metric: str) -> Interval | None:
    """Return the interval of an image metric that is a function of counts, or None where there is none.

    There is none without scores, for a metric that is not installed, and where all bootstrap samples are equal.
    """
    try:
        level, found = parse(metric)
    except (IadbeError, ImportError):
        return None
    if not cases or level != "image" or found.dialect != EXACT or not isinstance(found, CountMetric):
        return None
    samples = bootstrap(cases, metric=found)
    if not np.isfinite(samples).all():
        return None
    if metric == "image_auroc":
        return auroc_interval([c for c in cases if c.truth.any() and not c.truth.all()], samples)
    return between if (between := percentile_interval(samples)).high > between.low else None


def ranks_of(comparison: Comparison, metric: str) -> Ranks | None:
    """Return the detectors' ranks over categories, or None with too few detectors or categories."""
    key = ("ranks", metric)
    if metric and key not in comparison.cache:
        comparison.cache[key] = ranks(comparison, metric, lower_is_better=lower_is_better(metric))
    return comparison.cache.get(key)


def ranking(
    results: Iterable[RunResult],
    metrics: Sequence[str] = (),
    style: Style | None = None,
    reported: Sequence[str] = (),
) -> list[Table]:
    """Return one table per dataset, setting and protocol: detectors by metrics and costs, best first.

    ``reported`` names publications (``published.sources()``) whose numbers stand beside ours. Intervals need the runs'
    scores, so runs from the store, not from the index.
    """
    return [ranking_of(c, metrics, style, reported) for c in compare(results)]


def by_category(
    results: Iterable[RunResult], metric: str = "image_auroc", style: Style | None = None, reported: Sequence[str] = ()
) -> list[Table]:
    """Return one table per dataset, setting and protocol that has the metric: detectors by categories, best first."""
    found = compare(results)
    having = [c for c in found if c.categories(metric) or any(e.failed for e in c.entries)]
    return [by_category_of(c, metric, style, reported) for c in having or found]


def listing(
    results: Iterable[RunResult], metrics: Sequence[str] = ("image_auroc",), style: Style | None = None
) -> Table:
    """Return one table of single runs: the mean over a run's tests, or its error."""
    style, notes, rows = style or Style(), _Footnotes(), []
    columns = [Column(n, n, numeric=False) for n in ("run", "detector", "dataset", "task", "setting", "protocol")]
    columns += [Column("seed", "seed")]
    columns += [*(Column(m, label(m), lower_is_better=lower_is_better(m)) for m in metrics), *COST_COLUMNS[:2]]
    for result in results:
        spec = result.spec
        words = (run_id(spec), spec.detector, spec.dataset, spec.task, setting_name(spec), spec.protocol)
        cells = [*(Cell(w) for w in words), Cell(str(spec.seed), float(spec.seed))]
        entry = Entry(spec.detector, spec.detector, spec.detector_params, (result,), ())
        one = Comparison(spec.dataset, setting_name(spec), spec.protocol, spec.data, (entry,))
        mark = (notes.mark(result.error),) if result.error else ()
        for metric in metrics:
            value = one.mean(entry, metric).value
            cells.append(Cell("failed", marks=mark) if result.error else number_cell(value, style.share))
        cells += [number_cell(entry.cost(c.name), style.cost) for c in COST_COLUMNS[:2]]
        rows.append(tuple(cells))
    return Table("Runs", tuple(columns), tuple(rows), notes.all())


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


@dataclass
class _Footnotes:
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
        self.notes = _Footnotes()
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
            if len(weights := {r.weights for r in entry.runs}) > 1:
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
        count = f"{len(entry.failed)} of {_runs(entry)[1]} runs failed"
        return (self.notes.mark(f"{entry.name}: {count}: {'; '.join(parts[:MANY])}{more}."),)


def ranking_of(
    comparison: Comparison,
    metrics: Sequence[str] = (),
    style: Style | None = None,
    reported: Sequence[str] = (),
    *,
    costs: bool = True,
    intervals: bool = True,
) -> Table:
    """Return :func:`ranking`'s table of one comparison, with or without costs."""
    style = style or Style()
    wanted = tuple(metrics) or comparison.metrics
    metrics = [m for m in wanted if comparison.categories(m)] or list(wanted[:1])
    first = metrics[0] if metrics else ""
    builder = TableBuilder(comparison, first, style, reported, intervals=intervals)
    for metric in metrics:
        builder.add_mean(Column(metric, label(metric), lower_is_better=lower_is_better(metric)), metric)
    lost = [number_cell(e.forgetting(first), style.share) for e in builder.entries]
    if any(c.value is not None for c in lost):
        builder.add(Column("forgetting", f"forgotten {label(first)}", lower_is_better=True), lost)
    sign = -1 if lower_is_better(first) else 1
    drops = [number_cell(sign * comparison.drop(e, first, comparison.changes), style.share) for e in builder.entries]
    if any(c.value is not None for c in drops):
        builder.add(Column("drop", f"lost {label(first)}", lower_is_better=True), drops)
        builder.notes.unmarked.append(CHANGES_NOTE)
    builder.add_ranks(first)
    same = same_machine(comparison)
    for column in COST_COLUMNS if costs else ():
        cells = [number_cell(e.cost(column.name), style.cost) for e in builder.entries]
        if any(c.value is not None for c in cells):
            builder.add(column, cells, ranked=same)
    counts = [_runs(e) for e in builder.entries]
    builder.add(Column("runs", "runs"), [Cell(f"{n}/{of}" if n < of else f"{n}", n) for n, of in counts], ranked=False)
    if costs and not same:
        builder.notes.unmarked.append(
            "Runs come from different machines, devices or numbers of threads: compare no times."
        )
    return builder.table()


def by_category_of(
    comparison: Comparison,
    metric: str,
    style: Style | None = None,
    reported: Sequence[str] = (),
    *,
    intervals: bool = True,
) -> Table:
    """Return :func:`by_category`'s table of one comparison."""
    style = style or Style()
    builder = TableBuilder(comparison, metric, style, reported, intervals=intervals)
    lower = lower_is_better(metric)
    names = list(comparison.categories(metric))
    if all(
        row.test == r.spec.task or is_changed(r, row.test) for e in builder.entries for r in e.runs for row in r.rows
    ):
        names = sorted({*names, *(r.spec.task for e in builder.entries for r in e.failed)})
    for name in names:
        cells = [builder.of_category(e, metric, name) for e in builder.entries]
        failed = [any(r.spec.task == name for r in e.failed) for e in builder.entries]
        cells = [Cell("failed") if f and c.value is None else c for c, f in zip(cells, failed, strict=True)]
        builder.add(Column(name, name, lower_is_better=lower), cells)
        builder.add_reported(metric, (name,))
    if len(names) != 1:  # a mean over one category repeats it
        builder.add_mean(Column("mean", "mean", lower_is_better=lower), metric)
    return builder.table(f"{label(metric)}: ", metric=metric)


def _runs(entry: Entry) -> tuple[int, int]:
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
