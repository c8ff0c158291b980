"""Robustness tables of the setting ``shifted``: a metric under corruptions by kind, by strength, or by both.

A number under corruptions is the mean over them, each of them a mean over categories and seeds. The drop is the number
of the unchanged images minus that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from iadbe.results.builder import TableBuilder, number_cell
from iadbe.results.comparison import Comparison, Mean, compare
from iadbe.results.entry import Entry
from iadbe.results.style import Style, label, lower_is_better
from iadbe.results.table import Cell, Column, Table
from iadbe.types import RunResult

GROUPINGS = ("kind", "strength", "change")
Change = tuple[str, int]  # kind and strength


def by_shift(
    results: Iterable[RunResult], metric: str = "image_auroc", grouping: str = "kind", style: Style | None = None
) -> list[Table]:
    """Return tables of one metric for each comparison with corruptions: detectors by corruptions, most robust first.

    ``grouping`` is kind (mean over strengths), strength (mean over kinds), or change: one table per kind, by strength.
    """
    style, tables = style or Style(), []
    for comparison in compare(results):
        kinds = list(dict.fromkeys(kind for kind, _ in comparison.changes))
        for kind in kinds if grouping == "change" else [""][: len(kinds)]:
            among = [c for c in comparison.changes if kind in ("", c[0])]
            tables.append(_table(comparison, metric, among, grouping, style))
    return tables


def _table(comparison: Comparison, metric: str, among: Sequence[Change], grouping: str, style: Style) -> Table:
    groups: dict[str, list[Change]] = {}
    for kind, strength in among:
        groups.setdefault(kind if grouping == "kind" else f"strength {strength}", []).append((kind, strength))
    lower = lower_is_better(metric)
    builder = TableBuilder(comparison, metric, style, intervals=False)
    order = _order([comparison.mean_under(entry, metric, among) for entry in builder.entries], lower)
    builder.entries, builder.grid = (
        [builder.entries[i] for i in order],
        [[cells[i] for i in order] for cells in builder.grid],
    )
    builder.add_mean(Column("unchanged", "unchanged", lower_is_better=lower), metric)
    for name, changes in groups.items():
        cells = [_cell(builder, entry, metric, changes) for entry in builder.entries]
        builder.add(Column(name.replace(" ", "_"), name, lower_is_better=lower), cells)
    if len(groups) > 1:
        cells = [_cell(builder, entry, metric, among) for entry in builder.entries]
        builder.add(Column("changed", "mean of these", lower_is_better=lower), cells)
    dropped = [(-1 if lower else 1) * comparison.drop(e, metric, among) for e in builder.entries]
    lost = [builder.marked(number_cell(d, style.share), e) for d, e in zip(dropped, builder.entries, strict=True)]
    builder.add(Column("drop", "lost", lower_is_better=True), lost)
    about = {"metric": metric, "kind": among[0][0]} if grouping == "change" else {"metric": metric}
    return builder.table(f"{label(metric)} under {about.get('kind', 'changes')}: ", **about)


def _order(means: Sequence[Mean], lower: bool) -> list[int]:
    """Return positions, best first; then those that lack something, then those without a value."""
    keys = [(not m.ranked, (1 if lower else -1) * m.value if math.isfinite(m.value) else math.inf) for m in means]
    return sorted(range(len(means)), key=keys.__getitem__)


def _cell(builder: TableBuilder, entry: Entry, metric: str, changes: Sequence[Change]) -> Cell:
    mean = builder.comparison.mean_under(entry, metric, changes)
    if not math.isfinite(mean.value):
        return Cell("failed") if entry.failed and not entry.runs else Cell()
    cell = builder.marked(builder.style.number(mean.value, mean.std if math.isfinite(mean.std) else None, None), entry)
    if mean.complete:
        return cell
    lacking = f"Mean over {mean.categories} of {mean.of} changes of categories, so not ranked."
    return replace(cell, marks=(*cell.marks, builder.notes.mark(lacking)))
