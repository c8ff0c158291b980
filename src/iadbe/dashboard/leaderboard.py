"""The start page: detectors ranked on one dataset in one setting and protocol, with significance and costs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.layout import page
from iadbe.errors import UnknownName
from iadbe.report.charts import RankDiagram, rank_diagram
from iadbe.results import published
from iadbe.results.builder import ranks_of
from iadbe.results.comparison import Comparison
from iadbe.results.index import RunQuery
from iadbe.results.style import Style, label, lower_is_better, number
from iadbe.results.table import Table
from iadbe.web import statistics
from iadbe.web.leaderboard import Names, category_table, compared, filtered, kind_of, tables_of
from iadbe.web.state import Server, ServerState

router = APIRouter()
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
NONE = "none"  # value of ``reported``: no published numbers
HEAT_LEVELS = 10  # colours of the category table
SOURCES = {
    "papers": "The methods' papers", "anomalib": "anomalib", "iadbe": "The original IADBE", "im_iad": "IM-IAD",
    "ader": "ADer", "orthoad_paddle": "OrthoAD on Paddle",
}  # fmt: skip


@dataclass(frozen=True)
class LeaderboardView:
    """The choices that a page's address holds."""

    dataset: str
    setting: str
    protocol: str
    metric: tuple[str, ...]
    detail: str
    seed: tuple[int, ...]
    kind: tuple[str, ...]
    find: str
    sort: str
    reported: tuple[str, ...]
    percent: bool
    intervals: bool

    @property
    def which(self) -> RunQuery:
        """The query of its runs."""
        return RunQuery((self.dataset,), (), (self.setting,), (self.protocol,), (), self.seed)

    def query(self, **more: str) -> str:
        """Return the API query of exactly what is shown."""
        given: dict[str, Any] = {n: getattr(self, n) for n in ("dataset", "setting", "protocol", "metric", "seed")}
        given |= {n: getattr(self, n) for n in ("kind", "find", "sort")} | more
        given["reported"] = [n for n in self.reported if n != NONE]
        given |= {n: "true" for n in ("percent", "intervals") if getattr(self, n)}
        return urlencode({k: v for k, v in given.items() if v}, doseq=True)

    def page_data(self, runs: int) -> dict[str, Any]:
        """Return the data for the page's script."""
        values = {n: getattr(self, n) for n in ("detail", "intervals", "percent")}
        return {**values, "query": self.query(), "runs": runs}


@router.get("/")
def leaderboard(
    server: Server,
    dataset: Annotated[str, Query(max_length=200)] = "",
    setting: Annotated[str, Query(max_length=200)] = "",
    protocol: Annotated[str, Query(max_length=200)] = "",
    metric: Names = [],  # noqa: B006
    detail: Annotated[str, Query(max_length=200)] = "",
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    kind: Names = [],  # noqa: B006
    find: Annotated[str, Query(max_length=200)] = "",
    sort: Annotated[str, Query(max_length=200)] = "",
    reported: Names = [],  # noqa: B006
    percent: bool = False,
    intervals: bool = False,
) -> HTMLResponse:
    """Render the leaderboard of one dataset, by default the one with the most runs."""
    metric, kind, reported = (
        [v for v in values if v] for values in (metric, kind, reported)
    )  # a form sends empty ones
    now = server.run_cache.now()
    jobs, _ = server.queue.list_jobs(limit=5)
    about: dict[str, Any] = {"runs": len(now.runs), "damaged": list(now.damaged.values()), "jobs": jobs}
    counts = now.counts("dataset")
    if not counts:
        return page("leaderboard", server, title="Leaderboard", at="/", **about)
    chosen = dataset or max(sorted(counts), key=counts.__getitem__)
    every = compared(server, RunQuery((chosen,)))
    settings = _settings(every)
    selected = _selected(every, setting, protocol)
    computed = {m for c in selected for m in c.metrics}
    have = {m for m in computed if any(c.categories(m) for c in selected)} or computed
    metrics = tuple(metric) or tuple(m for m in SHOWN if m in have) or tuple(sorted(have))
    view = LeaderboardView(
        chosen, selected[0].setting, selected[0].protocol, metrics, detail or next(iter(metrics), ""),
        tuple(seed), tuple(kind), find, sort, tuple(reported) or published.DEFAULT, percent, intervals,
    )  # fmt: skip
    tables, found = _tables(server, view), compared(server, view.which)
    style = Style(percent=percent)
    return page(
        "leaderboard", server, title="Leaderboard", at="/", **about, counts=counts, settings=settings, view=view,
        tables=tables, kinds=[(k, k.replace("_", " ")) for k in _kinds(selected)],
        seeds=[(n, n) for n in sorted({r.spec.seed for c in selected for e in c.entries for r in e.runs})],
        metrics=[(m, label(m)) for c in selected[:1] for m in c.metrics if m in have],
        sources=_sources(), comparisons=found,
        sentences=[statistics.sentence(c, style) for c in found],
        beside=[_details(server, c, view, style) for c in found if c.categories(view.detail)],
        page_data=view.page_data(sum(len(e.runs) for c in found for e in c.entries)), kind_of=kind_of,
    )  # fmt: skip


def _tables(server: ServerState, view: LeaderboardView) -> list[Table]:
    reported = tuple(n for n in view.reported if n != NONE)
    tables = tables_of(server, view.which, view.metric, reported=reported, percent=view.percent)  # intervals follow
    return filtered(tables, view.kind, view.find, view.sort)


def _settings(every: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Return the number of runs by setting and protocol."""
    found: dict[str, dict[str, int]] = {}
    for one in every:
        by_protocol = found.setdefault(one.setting, {})
        by_protocol[one.protocol] = by_protocol.get(one.protocol, 0) + _size(one)
    return found


def _selected(every: Sequence[Comparison], setting: str, protocol: str) -> list[Comparison]:
    """Return the comparisons of one setting and protocol, by default those with the most runs that are ranked."""
    fitting = [c for c in every if setting in ("", c.setting, c.setting.partition("(")[0])]
    if not fitting:
        raise UnknownName(f"no run is in the setting {setting!r}.")
    inner = [c for c in fitting if protocol in ("", c.protocol)]
    first = max(
        inner or fitting, key=lambda c: (_ranked(c), _size(c))
    )  # a setting without this protocol shows another one
    return [c for c in every if (c.setting, c.protocol) == (first.setting, first.protocol)]


def _size(one: Comparison) -> int:
    return sum(len(e.runs) + len(e.failed) for e in one.entries)


def _ranked(one: Comparison) -> int:
    return sum(len(e.runs) for e in one.entries if not e.unfinished)


def _kinds(found: Sequence[Comparison]) -> list[str]:
    return sorted({kind for c in found for e in c.entries if (kind := kind_of(e.detector))})


def _sources() -> list[tuple[str, str]]:
    return [(n, SOURCES.get(n, n)) for n in sorted(published.sources(), key=lambda n: [*SOURCES, n].index(n))]


@dataclass(frozen=True)
class TableDetails:
    """Category table and rank diagram of one comparison, for one metric."""

    title: str
    metric: str
    heat: Table
    heat_level: tuple[tuple[int | None, ...], ...]  # colour of each cell, 0 to 9; None: no number
    low: str
    high: str
    diagram: RankDiagram | None
    ranks: str  # a sentence


def _details(server: ServerState, one: Comparison, view: LeaderboardView, style: Style) -> TableDetails:
    heat = category_table(server, one, view.detail, style)
    (heat,) = filtered([heat], view.kind, view.find)
    values = [number(c.text) for row in heat.rows for c in row[1:] if c.value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)

    def heat_level(text: str) -> int:
        share = (number(text) - low) / ((high - low) or 1)
        share = 1 - share if lower_is_better(view.detail) else share
        return min(HEAT_LEVELS - 1, int(share * HEAT_LEVELS))

    levels = tuple(tuple(None if c.value is None else heat_level(c.text) for c in row[1:]) for row in heat.rows)
    found = ranks_of(one, view.detail)
    diagram = rank_diagram(found.names, found.mean, found.groups, found.critical) if found else None
    empty, hot = (high, low) if lower_is_better(view.detail) else (low, high)
    ranks_sentence = found.sentence if found else ""
    return TableDetails(one.title, label(view.detail), heat, levels, f"{empty:g}", f"{hot:g}", diagram, ranks_sentence)
