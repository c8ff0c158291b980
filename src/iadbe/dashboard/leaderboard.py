"""Where one starts: the detectors ranked on one dataset, in one setting and protocol, and what explains the ranks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import HTMLResponse

from iadbe.dashboard.frame import page
from iadbe.errors import UnknownName
from iadbe.report.charts import RankDiagram, rank_diagram
from iadbe.results import published
from iadbe.results.builder import ranks_of
from iadbe.results.comparison import Comparison
from iadbe.results.index import RunQuery
from iadbe.results.ranking import by_category_of
from iadbe.results.style import Style, label, lower_is_better, number
from iadbe.results.table import Table
from iadbe.web import standing
from iadbe.web.house import Here, House
from iadbe.web.leaderboard import Names, arranged, compared, kind_of, made

router = APIRouter()
SHOWN = ("image_auroc", "image_ap", "image_f1max", "pixel_auroc", "pixel_ap", "pixel_aupro")
NONE = "none"  # as ``reported``: no published numbers
WARMTHS = 10  # colours of the heat map
SOURCES = {
    "papers": "The methods' papers", "anomalib": "anomalib", "iadbe": "The original IADBE", "im_iad": "IM-IAD",
    "ader": "ADer", "orthoad_paddle": "OrthoAD on Paddle",
}  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """The view that an address holds."""

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
        """The runs that are meant."""
        return RunQuery((self.dataset,), (), (self.setting,), (self.protocol,), (), self.seed)

    def query(self, **more: str) -> str:
        """Return the query of the API that gives exactly what is shown."""
        given: dict[str, Any] = {n: getattr(self, n) for n in ("dataset", "setting", "protocol", "metric", "seed")}
        given |= {n: getattr(self, n) for n in ("kind", "find", "sort")} | more
        given["reported"] = [n for n in self.reported if n != NONE]
        given |= {n: "true" for n in ("percent", "intervals") if getattr(self, n)}
        return urlencode({k: v for k, v in given.items() if v}, doseq=True)

    def view(self, runs: int) -> dict[str, Any]:
        """Return what the page's script must know."""
        told = {n: getattr(self, n) for n in ("detail", "intervals", "percent")}
        return {**told, "query": self.query(), "runs": runs}


@router.get("/")
def leaderboard(
    house: Here,
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
    """Show the leaderboard of one dataset, the one with the most runs by default."""
    metric, kind, reported = (
        [v for v in values if v] for values in (metric, kind, reported)
    )  # a form sends empty ones
    now = house.library.now()
    jobs, _ = house.queue.listed(limit=5)
    about: dict[str, Any] = {"runs": len(now.runs), "damaged": list(now.damaged.values()), "jobs": jobs}
    counts = Counter(s.result.spec.dataset for s in now.runs.values())
    if not counts:
        return page("leaderboard", house, title="Leaderboard", at="/", **about)
    chosen = dataset or max(sorted(counts), key=counts.__getitem__)
    every = compared(house, RunQuery((chosen,)))
    places = _places(every)
    here = _place(every, setting, protocol)
    have = {m for c in here for m in c.metrics}
    wanted = tuple(metric) or tuple(m for m in SHOWN if m in have) or tuple(sorted(have))
    asked = Asked(
        chosen, here[0].setting, here[0].protocol, wanted, detail or next(iter(wanted), ""), tuple(seed), tuple(kind),
        find, sort, tuple(reported) or published.DEFAULT, percent, intervals,
    )  # fmt: skip
    tables, found = _made(house, asked), compared(house, asked.which)
    style = Style(percent=percent)
    return page(
        "leaderboard", house, title="Leaderboard", at="/", **about, counts=counts, places=places, asked=asked,
        tables=tables, kinds=[(k, k.replace("_", " ")) for k in _kinds(here)],
        seeds=[(n, n) for n in sorted({r.spec.seed for c in here for e in c.entries for r in e.runs})],
        metrics=[(m, label(m)) for c in here[:1] for m in c.metrics], sources=_sources(), standing=found,
        sentences=[standing.sentence(c, style) for c in found],
        beside=[_beside(c, asked, style) for c in found if c.categories(asked.detail)],
        view=asked.view(sum(len(e.runs) for c in found for e in c.entries)), kind_of=kind_of,
    )  # fmt: skip


def _made(house: House, asked: Asked) -> list[Table]:
    reported = tuple(n for n in asked.reported if n != NONE)
    tables = made(house, asked.which, asked.metric, reported=reported, percent=asked.percent)  # intervals follow
    return arranged(tables, asked.kind, asked.find, asked.sort)


def _places(every: Sequence[Comparison]) -> dict[str, dict[str, int]]:
    """Return, by setting and then by protocol, how many runs there are."""
    found: dict[str, dict[str, int]] = {}
    for one in every:
        by_protocol = found.setdefault(one.setting, {})
        by_protocol[one.protocol] = by_protocol.get(one.protocol, 0) + _size(one)
    return found


def _place(every: Sequence[Comparison], setting: str, protocol: str) -> list[Comparison]:
    """Return what is shown: one setting and protocol, those with the most runs where none are named."""
    fitting = [c for c in every if setting in ("", c.setting, c.setting.partition("(")[0])]
    if not fitting:
        raise UnknownName(f"no run is in the setting {setting!r}.")
    inner = [c for c in fitting if protocol in ("", c.protocol)]
    first = max(inner or fitting, key=_size)  # a setting that lacks the protocol shows the one that it has
    return [c for c in every if (c.setting, c.protocol) == (first.setting, first.protocol)]


def _size(one: Comparison) -> int:
    return sum(len(e.runs) + len(e.failed) for e in one.entries)


def _kinds(found: Sequence[Comparison]) -> list[str]:
    return sorted({kind for c in found for e in c.entries if (kind := kind_of(e.detector))})


def _sources() -> list[tuple[str, str]]:
    return [(n, SOURCES.get(n, n)) for n in sorted(published.sources(), key=lambda n: [*SOURCES, n].index(n))]


@dataclass(frozen=True)
class Beside:
    """What stands beside one table, about one metric."""

    title: str
    metric: str
    heat: Table
    warmth: tuple[tuple[int | None, ...], ...]  # of each cell, 0 to 9; None: no number
    low: str
    high: str
    diagram: RankDiagram | None
    ranks: str  # a sentence


def _beside(one: Comparison, asked: Asked, style: Style) -> Beside:
    heat = by_category_of(one, asked.detail, style, intervals=False)
    (heat,) = arranged([heat], asked.kind, asked.find)
    values = [number(c.text) for row in heat.rows for c in row[1:] if c.value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)

    def warmth(text: str) -> int:
        share = (number(text) - low) / ((high - low) or 1)
        share = 1 - share if lower_is_better(asked.detail) else share
        return min(WARMTHS - 1, int(share * WARMTHS))

    warm = tuple(tuple(None if c.value is None else warmth(c.text) for c in row[1:]) for row in heat.rows)
    found = ranks_of(one, asked.detail)
    diagram = rank_diagram(found.names, found.mean, found.groups, found.critical) if found else None
    cold, hot = (high, low) if lower_is_better(asked.detail) else (low, high)
    told = found.sentence if found else ""
    return Beside(one.title, label(asked.detail), heat, warm, f"{cold:g}", f"{hot:g}", diagram, told)
