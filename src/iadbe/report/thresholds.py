"""The thresholds that `iadbe calibrate` has stored in the models of runs: for the report's verdicts, and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from iadbe.evaluation.calibration import Calibration, read
from iadbe.evaluation.conformal import Rate, percent
from iadbe.results.builder import Footnotes
from iadbe.results.entry import Entry, last_scores
from iadbe.results.names import foreign_note
from iadbe.results.table import Cell, Column, Table
from iadbe.running.store import Store

COLUMNS = (
    Column("detector", "detector", numeric=False),
    Column("category", "category", numeric=False),
    Column("seed", "seed"),
    Column("threshold", "threshold"),
    Column("overkill", "overkill", lower_is_better=True),
    Column("escape", "escape", lower_is_better=True),
    Column("how", "chosen for", numeric=False),
)
LOOK = Column("look", "look from")  # where a model has three verdicts
NOTE = (
    "Overkill is the false positive rate (good parts rejected), escape the false negative rate (defective parts "
    "passed). With ≤ it is guaranteed: on average over such samples of good images and, in brackets, for this one with "
    "95 % confidence, or with the confidence that is stated. Otherwise it is measured on the calibration images, with "
    "its 95 % interval. From the look threshold on a part is to be looked at; the bound beside it is on all good parts "
    "that are not called good."
)


def calibration_of(folder: Path) -> Calibration | None:
    """Return the calibration of a run's model by `iadbe calibrate`; None where there is none."""
    try:
        found = read(json.loads((folder / "model" / "detector.json").read_text(encoding="utf-8"))["calibration"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if found.good and found.threshold is not None else None


def by_category(store: Store, entry: Entry) -> dict[str, Calibration]:
    """Return a detector's calibrations by category, each of the first run there, where it has one."""
    found: dict[str, Calibration | None] = {}
    for run in entry.runs:
        for test in dict.fromkeys(s.test for s in last_scores(run)):
            if (category := entry.category(run, test)) not in found:
                found[category] = calibration_of(store.path(run.spec))
    return {category: it for category, it in found.items() if it is not None}


def table(store: Store, title: str, entries: Sequence[Entry]) -> Table | None:
    """Return a table with a row for each calibrated model; None where there is none."""
    rows, notes = [], Footnotes()
    calibrations = [calibration_of(store.path(run.spec)) for entry in entries for run in entry.runs]
    has_look = any(it is not None and it.look_threshold is not None for it in calibrations)
    for entry in entries:
        for run in entry.runs:
            if (it := calibration_of(store.path(run.spec))) is not None:
                tests = dict.fromkeys(entry.category(run, s.test) for s in last_scores(run))
                row = [Cell(entry.name, marks=_foreign(notes, entry)), Cell(", ".join(tests) or run.spec.task)]
                row += [Cell(str(run.spec.seed), run.spec.seed), Cell(f"{it.threshold:.4g}", it.threshold)]
                look = [_look(it)] if has_look else []
                rows.append((*row, _rate(it.overkill), _rate(it.escape), *look, Cell(it.how)))
    columns = (*COLUMNS[:-1], LOOK, COLUMNS[-1]) if has_look else COLUMNS
    return Table(f"Thresholds: {title}", columns, tuple(rows), (*notes.all(), ("", NOTE))) if rows else None


def _foreign(notes: Footnotes, entry: Entry) -> tuple[str, ...]:
    note = foreign_note(entry.detector)
    return (notes.mark(note),) if note else ()


def _look(it: Calibration) -> Cell:
    if it.look_threshold is None or it.look is None:
        return Cell()
    return Cell(f"{it.look_threshold:.4g}: {_rate(it.look).text}", it.look_threshold)


def _rate(rate: Rate | None) -> Cell:
    if rate is None:
        return Cell()
    if rate.confidence is not None:
        return Cell(f"≤ {percent(rate.high)} with {percent(rate.confidence)} confidence", rate.high, high=rate.high)
    if rate.guaranteed:
        return Cell(f"≤ {percent(rate.value)} (≤ {percent(rate.high)})", rate.value, high=rate.high)
    text = f"{percent(rate.value)} ({percent(rate.low)}–{percent(rate.high)})"
    return Cell(text, rate.value, low=rate.low, high=rate.high)
