"""Routes for the leaderboard: detectors ranked by their metrics, as JSON, CSV, Markdown or LaTeX."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from iadbe import registry
from iadbe.errors import UnknownName, did_you_mean
from iadbe.results import published, table
from iadbe.results.comparison import Comparison
from iadbe.results.index import RunQuery
from iadbe.results.ranking import by_category_of, ranking_of
from iadbe.results.style import Style
from iadbe.web.cancellation import Cancelled, stop_if
from iadbe.web.state import Server, ServerState

router = APIRouter(tags=["leaderboard"])
MEDIA = {"csv": "text/csv", "markdown": "text/markdown", "latex": "application/x-latex"}
ENDINGS = {"csv": "csv", "markdown": "md", "latex": "tex"}


class Cell(BaseModel):
    """One cell of a table."""

    text: str = Field(description="formatted; a dash where there is no number")
    value: float | None = Field(description="unrounded")
    std: float | None = Field(None, description="standard deviation over seeds")
    low: float | None = Field(None, description="lower end of the 95 % interval")
    high: float | None = None
    best: bool = False
    marks: list[str] = Field([], description="marks of its footnotes")


class Column(BaseModel):
    """One column of a table."""

    name: str
    label: str
    lower_is_better: bool


class Footnote(BaseModel):
    """A note on the numbers of a table."""

    mark: str
    text: str


class Table(BaseModel):
    """Detectors on the same data, in the same setting and protocol."""

    title: str
    dataset: str
    setting: str
    protocol: str
    metric: str = Field("", description="the metric of a table by category")
    data: str = Field("", description="digest of the data, where two tables have the same title")
    columns: list[Column]
    rows: list[dict[str, Cell]] = Field(description="cells by the columns' names, best first")
    footnotes: list[Footnote]


class Leaderboard(BaseModel):
    """The tables, and the values that the store has for each filter."""

    tables: list[Table]
    choices: dict[str, list[str | int]] = Field(description="by field, the values in the store")
    reported: list[str] = Field(description="sources of published numbers that can be shown beside the store's")
    runs: int = Field(description="in the store")
    damaged: list[str] = Field(description="runs that cannot be read, one sentence each")


Names = Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Query(max_length=200)]


@router.get("/leaderboard", response_model=Leaderboard, responses={200: {"content": {m: {} for m in MEDIA.values()}}})
def leaderboard(
    server: Server,
    cancelled: Cancelled,
    dataset: Names = [],  # noqa: B006  (FastAPI copies it)
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    metric: Annotated[list[str], Query(description="which metrics; all of them by default")] = [],  # noqa: B006
    by: Annotated[Literal["metric", "category"], Query(description="what the columns are")] = "metric",
    reported: Annotated[list[str], Query(description="sources of published numbers to show beside")] = [],  # noqa: B006
    intervals: Annotated[bool, Query(description="95 % intervals; slower")] = False,
    percent: bool = False,
    kind: Annotated[list[str], Query(description="only detectors of these kinds")] = [],  # noqa: B006
    find: Annotated[str, Query(description="only rows whose name contains this", max_length=200)] = "",
    sort: Annotated[str, Query(description="a column's name; -NAME: descending", max_length=200)] = "",
    form: Annotated[Literal["json", "csv", "markdown", "latex"], Query(alias="format")] = "json",
) -> Any:
    """Return one table for each combination of data, setting and protocol that matches.

    A dataset and a setting may be named with their parameters, as the tables are: `few_shot(k=4)`.
    """
    which = run_query(dataset, category, setting, protocol, detector, seed)
    tables = tables_of(
        server, which, tuple(metric), by, tuple(reported), intervals=intervals, percent=percent, cancelled=cancelled
    )
    tables = filtered(tables, kind, find, sort)
    if form != "json":
        headers = {"Content-Disposition": f'attachment; filename="leaderboard.{ENDINGS[form]}"'}
        return Response(table.FORMATS[form](tables), headers=headers, media_type=f"{MEDIA[form]}; charset=utf-8")
    now = server.run_cache.now()
    return {
        "tables": json.loads(table.to_json(tables)),
        "choices": server.run_cache.choices(),
        "reported": list(published.sources()),
        "runs": len(now.runs),
        "damaged": list(now.damaged.values()),
    }


def run_query(*given: Sequence[Any]) -> RunQuery:
    """Return the run query of a request, from lists in the order of :class:`RunQuery`."""
    return RunQuery(*(tuple(values) for values in given))


def compared(
    server: ServerState, which: RunQuery, *, scores: bool = False, cancelled: threading.Event | None = None
) -> tuple[Comparison, ...]:
    """Return the comparisons that match. Datasets and settings may be named with or without their parameters."""
    now, heads = server.run_cache.now(), {}
    for name in ("dataset", "setting"):
        known = now.counts(name)
        heads[name] = tuple(w if w in known else w.partition("(")[0] for w in getattr(which, name))
    which_heads, check = replace(which, **heads), partial(stop_if, cancelled)
    found = server.run_cache.comparisons(which_heads, scores=scores, check=check)
    found = tuple(c for c in found if _is_named(c.dataset, which.dataset) and _is_named(c.setting, which.setting))
    if not found and any("(" in name for name in (*which.dataset, *which.setting)):
        raise UnknownName(f"no run is on {', '.join(which.dataset)} in {', '.join(which.setting)}.")
    return found


def filtered(
    tables: Sequence[table.Table], kinds: Sequence[str] = (), find: str = "", sort: str = ""
) -> list[table.Table]:
    """Filter and sort the rows of tables. Numbers and marks do not change."""
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    known = {c.name for t in tables for c in t.columns}
    if sort and tables and name not in known:
        raise UnknownName(f"there is no column {name!r}.{did_you_mean(name, known)}")
    done = []
    for one in tables:
        rows = [r for r in one.rows if find.lower() in r[0].text.lower()]
        rows = [r for r in rows if not kinds or kind_of(r[0].text) in kinds]
        at = next((i for i, c in enumerate(one.columns) if c.name == name), None)
        if at is not None:
            rows = _sorted(rows, at, descending=descending, numeric=one.columns[at].numeric)
        done.append(replace(one, rows=tuple(rows)))
    return done


def kind_of(name: str) -> str:
    """Return the kind of a detector by its card; empty where the detector is not registered."""
    plain = name.partition("(")[0]
    return str(registry.card("detectors", plain).get("kind", "")) if plain in registry.names("detectors") else ""


def _sorted(rows: list[tuple[table.Cell, ...]], at: int, *, descending: bool, numeric: bool) -> list[Any]:
    if not numeric:
        return sorted(rows, key=lambda r: r[at].text, reverse=descending)
    have = [r for r in rows if r[at].value is not None]
    return [
        *sorted(have, key=lambda r: r[at].value or 0.0, reverse=descending),
        *(r for r in rows if r[at].value is None),  # rows without a number come last in both orders
    ]


def _is_named(name: str, names: Sequence[str]) -> bool:
    return not names or name in names or name.partition("(")[0] in names


def tables_of(
    server: ServerState, which: RunQuery, metrics: tuple[str, ...] = (), by: str = "metric",
    reported: tuple[str, ...] = (), *, intervals: bool = False, percent: bool = False,
    cancelled: threading.Event | None = None,
) -> list[table.Table]:  # fmt: skip
    """Return the tables of the runs that match."""
    for name in reported:
        if name not in published.sources():
            hint = did_you_mean(name, published.sources())
            raise UnknownName(f"no published numbers are named {name!r}.{hint}")
    found = compared(server, which, scores=intervals, cancelled=cancelled)
    _check(metrics, found)
    style = Style(percent=percent)
    if by == "metric":
        return [ranking_table(server, c, metrics, style, reported, intervals=intervals) for c in found]
    names = metrics or ("image_auroc",)
    pairs = [(c, m) for c in found for m in names if m in c.metrics or len(found) == 1]
    return [category_table(server, c, m, style, reported, intervals=intervals) for c, m in pairs]


def ranking_table(
    server: ServerState, of: Comparison, metrics: tuple[str, ...], style: Style, reported: tuple[str, ...] = (),
    *, intervals: bool = False,
) -> table.Table:  # fmt: skip
    """Return :func:`ranking_of`'s table, made once while its runs are unchanged."""
    asked = ("ranking", metrics, style, reported, intervals)
    return server.kept.get(of, asked, lambda: ranking_of(of, metrics, style, reported, intervals=intervals))


def category_table(
    server: ServerState, of: Comparison, metric: str, style: Style, reported: tuple[str, ...] = (),
    *, intervals: bool = False,
) -> table.Table:  # fmt: skip
    """Return :func:`by_category_of`'s table, made once while its runs are unchanged."""
    asked = ("category", metric, style, reported, intervals)
    return server.kept.get(of, asked, lambda: by_category_of(of, metric, style, reported, intervals=intervals))


def _check(metrics: tuple[str, ...], found: tuple[Comparison, ...]) -> None:
    have = sorted({m for c in found for m in c.metrics})
    for name in metrics:
        if name not in have:
            raise UnknownName(
                f"no run has the metric {name!r}.{did_you_mean(name, have)} There are: {', '.join(have)}."
            )
