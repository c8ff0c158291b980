"""What changes of the images do to detectors: tables of the setting ``shifted`` by kind, by strength, or by both.

A number under changes is the mean over them, each of them a mean over categories and seeds. What is lost is the number
of the unchanged images less that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from iadbe.results.comparison import Comparison, Entry, Mean, compare
from iadbe.results.ranking import Style, TableBuilder, label, lower_is_better, number_cell
from iadbe.results.table import Cell, Column, Table
from iadbe.types import RunResult

GROUPINGS = ("kind", "strength", "change")
Change = tuple[str, int]  # kind and strength


def by_shift(
    results: Iterable[RunResult], metric: str = "image_auroc", way: str = "kind", style: Style | None = None
) -> list[Table]:
    """Return tables of one metric for each comparison that has changes: detectors by changes, the steadiest first.

    ``way`` is kind (mean over strengths), strength (mean over kinds), or change: one table per kind, by strength.
    """
    style, tables = style or Style(), []
    for comparison in compare(results):
        kinds = list(dict.fromkeys(kind for kind, _ in comparison.changes))
        for kind in kinds if way == "change" else [""][: len(kinds)]:
            among = [c for c in comparison.changes if kind in ("", c[0])]
            tables.append(_table(comparison, metric, among, way, style))
    return tables


def _table(comparison: Comparison, metric: str, among: Sequence[Change], way: str, style: Style) -> Table:
    groups: dict[str, list[Change]] = {}
    for kind, strength in among:
        groups.setdefault(kind if way == "kind" else f"strength {strength}", []).append((kind, strength))
    lower = lower_is_better(metric)
    draft = TableBuilder(comparison, metric, style, intervals=False)
    order = _order([comparison.mean_under(entry, metric, among) for entry in draft.entries], lower)
    draft.entries, draft.grid = [draft.entries[i] for i in order], [[cells[i] for i in order] for cells in draft.grid]
    draft.add_mean(Column("unchanged", "unchanged", lower_is_better=lower), metric)
    for name, changes in groups.items():
        cells = [_cell(draft, entry, metric, changes) for entry in draft.entries]
        draft.add(Column(name.replace(" ", "_"), name, lower_is_better=lower), cells)
    if len(groups) > 1:
        cells = [_cell(draft, entry, metric, among) for entry in draft.entries]
        draft.add(Column("changed", "mean of these", lower_is_better=lower), cells)
    lost = [number_cell((-1 if lower else 1) * comparison.drop(e, metric, among), style.share) for e in draft.entries]
    draft.add(Column("drop", "lost", lower_is_better=True), lost)
    about = {"metric": metric, "kind": among[0][0]} if way == "change" else {"metric": metric}
    return draft.table(f"{label(metric)} under {about.get('kind', 'changes')}: ", **about)


def _order(means: Sequence[Mean], lower: bool) -> list[int]:
    """Return places, best first; those that lack something come after, those without a number last."""
    keys = [(not m.complete, (1 if lower else -1) * m.value if math.isfinite(m.value) else math.inf) for m in means]
    return sorted(range(len(means)), key=keys.__getitem__)


def _cell(draft: TableBuilder, entry: Entry, metric: str, changes: Sequence[Change]) -> Cell:
    mean = draft.comparison.mean_under(entry, metric, changes)
    if not math.isfinite(mean.value):
        return Cell("failed") if entry.failed and not entry.runs else Cell()
    cell = draft.style.number(mean.value, mean.std if math.isfinite(mean.std) else None, None)
    if mean.complete:
        return cell
    lacking = f"Mean over {mean.categories} of {mean.of} changes of categories, so not ranked."
    return replace(cell, marks=(draft.notes.mark(lacking),))
