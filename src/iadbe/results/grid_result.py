"""The results of a grid as a Python value: tables, a data frame, and HTML for notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from iadbe.errors import BadConfig, Missing, did_you_mean
from iadbe.results.ranking import ranking
from iadbe.results.table import FORMATS, Table, superscript
from iadbe.running.pool import GridSummary
from iadbe.seeds import run_id
from iadbe.types import RunResult

COLUMNS = ("detector", "dataset", "task", "setting", "seed", "protocol")


@dataclass(frozen=True, slots=True, repr=False)
class GridResult:
    """All runs of a grid, those that were done before included."""

    results: tuple[RunResult, ...]
    summary: GridSummary = field(default_factory=GridSummary)
    skipped: tuple[str, ...] = ()  # cells that cannot run, with the reason

    @property
    def failed(self) -> tuple[RunResult, ...]:
        """The runs that ended with an error."""
        return tuple(result for result in self.results if result.error)

    def tables(self, metrics: Sequence[str] = ()) -> list[Table]:
        """Return one ranking for each dataset, setting and protocol; all ``metrics`` by default."""
        return ranking(self.results, metrics)

    def table(self, metrics: Sequence[str] = (), form: str = "markdown") -> str:
        """Return the rankings as text: "markdown", "latex", "csv" or "json"."""
        if form not in FORMATS:
            raise BadConfig(f"there is no form {form!r}.{did_you_mean(form, FORMATS)} There are: {', '.join(FORMATS)}.")
        return FORMATS[form](self.tables(metrics))

    def rows(self) -> list[dict[str, Any]]:
        """Return one mapping for each run: what it was, its metrics (means over the tests of its last step), costs."""
        return [_row(result) for result in self.results]

    def to_pandas(self) -> Any:
        """Return :meth:`rows` as a ``pandas.DataFrame``. Raises :class:`Missing` without pandas."""
        try:
            import pandas  # type: ignore[import-untyped, import-not-found, unused-ignore]
        except ImportError as error:
            raise Missing("to_pandas() needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.rows())

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        return f"GridResult({len(self.results)} runs, {len(self.failed)} failed, {len(self.skipped)} cells skipped)"

    def _repr_html_(self) -> str:
        """Show the rankings in a notebook."""
        parts = [_html(table) for table in self.tables()]
        reasons = dict.fromkeys(result.error.partition("\n")[0] for result in self.failed)
        parts += [f"<p>failed: {html.escape(reason)}</p>" for reason in reasons]
        return "\n".join(parts) or f"<p>{html.escape(repr(self))}</p>"


def _row(result: RunResult) -> dict[str, Any]:
    last = max((row.step for row in result.rows), default=0)
    values: dict[str, list[float]] = {}
    for row in result.rows:
        if row.step == last and math.isfinite(row.value):
            values.setdefault(row.metric, []).append(row.value)
    return {
        "run": run_id(result.spec),
        **{name: getattr(result.spec, name) for name in COLUMNS},
        **{metric: fmean(numbers) for metric, numbers in values.items()},
        "latency_ms": result.latency_ms,
        "seconds": result.seconds.get("total", math.nan),
        "error": result.error,
    }


def _html(table: Table) -> str:
    heads = "".join(f"<th>{html.escape(column.label)}</th>" for column in table.columns)
    lines = [f"<table><caption>{html.escape(table.title)}</caption>", f"<thead><tr>{heads}</tr></thead>", "<tbody>"]
    for row in table.rows:
        cells = ((html.escape(cell.text) + "".join(map(superscript, cell.marks)), cell.best) for cell in row)
        texts = (f"<td><b>{text}</b></td>" if best else f"<td>{text}</td>" for text, best in cells)
        lines.append(f"<tr>{''.join(texts)}</tr>")
    notes = (f"<p>{superscript(mark)} {html.escape(text)}</p>" for mark, text in table.footnotes)
    return "\n".join([*lines, "</tbody></table>", *notes])
