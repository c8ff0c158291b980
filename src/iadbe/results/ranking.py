"""From results to tables: detectors ranked by their means, or category by category, with published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from iadbe.results.builder import Footnotes, TableBuilder, number_cell, run_counts, same_machine, steps_cell
from iadbe.results.comparison import Comparison, compare
from iadbe.results.entry import Entry, is_changed
from iadbe.results.names import data_title, foreign_note, setting_name
from iadbe.results.style import Style, label, lower_is_better
from iadbe.results.table import Cell, Column, Table
from iadbe.seeds import run_id
from iadbe.types import RunResult

COST_COLUMNS = (
    Column("latency_ms", "ms", lower_is_better=True),
    Column("fit_seconds", "fit s", lower_is_better=True),
    Column("fit_cpu_seconds", "fit CPU s", lower_is_better=True),
    Column("memory_mb", "MB", lower_is_better=True),
)
CHANGES_NOTE = "Numbers are of unchanged images; lost is the drop under corruptions, mean over all of them."


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
    return [by_category_of(c, metric, style, reported) for c in with_metric(compare(results), metric)]


def with_metric(comparisons: Sequence[Comparison], metric: str) -> Sequence[Comparison]:
    """Return the comparisons that have a metric, or failed runs; all of them where none has."""
    return [c for c in comparisons if c.categories(metric) or any(e.failed for e in c.entries)] or comparisons


def listing(
    results: Iterable[RunResult], metrics: Sequence[str] = ("image_auroc",), style: Style | None = None
) -> Table:
    """Return one table of single runs: the mean over a run's tests, or its error."""
    style, notes, rows = style or Style(), Footnotes(), []
    columns = [Column(n, n, numeric=False) for n in ("run", "detector", "dataset", "task", "setting", "protocol")]
    columns += [Column("seed", "seed")]
    columns += [*(Column(m, label(m), lower_is_better=lower_is_better(m)) for m in metrics), *COST_COLUMNS[:2]]
    for result in results:
        spec = result.spec
        words = (run_id(spec), spec.detector, data_title(result), spec.task, setting_name(spec), spec.protocol)
        cells = [*(Cell(w) for w in words), Cell(str(spec.seed), float(spec.seed))]
        if note := foreign_note(spec.detector):
            cells[1] = Cell(spec.detector, marks=(notes.mark(note),))
        entry = Entry(spec.detector, spec.detector, spec.detector_params, (result,), ())
        one = Comparison(spec.dataset, setting_name(spec), spec.protocol, spec.data, (entry,))
        mark = (notes.mark(result.error),) if result.error else ()
        unfinished = (
            (notes.mark(f"{steps_cell(entry).text}: training steps done of those planned."),)
            if entry.unfinished
            else ()
        )
        for metric in metrics:
            value = one.mean(entry, metric).value
            cell = number_cell(value, style.share)
            cell = cell if cell.value is None else replace(cell, marks=unfinished)
            cells.append(Cell("failed", marks=mark) if result.error else cell)
        cells += [number_cell(entry.cost(c.name), style.cost) for c in COST_COLUMNS[:2]]
        rows.append(tuple(cells))
    return Table("Runs", tuple(columns), tuple(rows), notes.all())


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
    lost = [builder.marked(number_cell(e.forgetting(first), style.share), e) for e in builder.entries]
    if any(c.value is not None for c in lost):
        builder.add(Column("forgetting", f"forgotten {label(first)}", lower_is_better=True), lost)
    sign = -1 if lower_is_better(first) else 1
    dropped = [sign * comparison.drop(e, first, comparison.changes) for e in builder.entries]
    drops = [builder.marked(number_cell(d, style.share), e) for d, e in zip(dropped, builder.entries, strict=True)]
    if any(c.value is not None for c in drops):
        builder.add(Column("drop", f"lost {label(first)}", lower_is_better=True), drops)
        builder.notes.unmarked.append(CHANGES_NOTE)
    builder.add_ranks(first)
    builder.add_steps()
    for column in COST_COLUMNS if costs else ():
        builder.add_cost(column)
    counts = [run_counts(e) for e in builder.entries]
    builder.add(Column("runs", "runs"), [Cell(f"{n}/{of}" if n < of else f"{n}", n) for n, of in counts], ranked=False)
    if costs and not same_machine(comparison):
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
