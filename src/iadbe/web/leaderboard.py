"""Detectors ranked: by data, setting, protocol and metric; in JSON, or as a file of exactly what is shown."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import Response

from iadbe.errors import BadConfig, UnknownName, did_you_mean
from iadbe.results import published, table
from iadbe.results.comparison import Comparison
from iadbe.results.index import Which
from iadbe.results.ranking import Style, by_category_of, ranking_of
from iadbe.web.house import Here, House

router = APIRouter(tags=["leaderboard"])
MEDIA = {"csv": "text/csv", "markdown": "text/markdown", "latex": "application/x-latex"}
ENDINGS = {"csv": "csv", "markdown": "md", "latex": "tex"}
SCORED = 3000  # runs whose scores one request may read for intervals


class Cell(BaseModel):
    """One place of a table."""

    text: str = Field(description="as people write it; a dash where there is no number")
    value: float | None = Field(description="unrounded")
    std: float | None = Field(None, description="over seeds")
    low: float | None = Field(None, description="lower end of the 95 % interval")
    high: float | None = None
    best: bool = False
    marks: list[str] = Field([], description="of footnotes")


class Column(BaseModel):
    """One column of a table."""

    name: str
    label: str
    lower_is_better: bool


class Footnote(BaseModel):
    """What a reader of the numbers must know."""

    mark: str
    text: str


class Table(BaseModel):
    """Detectors on the same data, in the same setting and protocol."""

    title: str
    dataset: str
    setting: str
    protocol: str
    metric: str = Field("", description="of a table by category")
    data: str = Field("", description="digest of the data, where two tables have the same names")
    columns: list[Column]
    rows: list[dict[str, Cell]] = Field(description="cells by the columns' names, best first")
    footnotes: list[Footnote]


class Leaderboard(BaseModel):
    """What was asked for, and what else could be."""

    tables: list[Table]
    choices: dict[str, list[str | int]] = Field(description="by field, what the store has")
    reported: list[str] = Field(description="the publications whose numbers can stand beside ours")
    runs: int = Field(description="in the store")
    damaged: list[str] = Field(description="runs that cannot be read, one sentence each")


Names = Annotated[list[str], Query()]


@router.get("/leaderboard", response_model=Leaderboard, responses={200: {"content": {m: {} for m in MEDIA.values()}}})
def leaderboard(
    house: Here,
    dataset: Names = [],  # noqa: B006  (FastAPI copies it)
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    metric: Annotated[list[str], Query(description="which metrics; all of them by default")] = [],  # noqa: B006
    by: Annotated[Literal["metric", "category"], Query(description="what the columns are")] = "metric",
    reported: Annotated[list[str], Query(description="publications whose numbers stand beside ours")] = [],  # noqa: B006
    intervals: Annotated[bool, Query(description="95 % intervals; they take a moment")] = False,
    percent: bool = False,
    form: Annotated[Literal["json", "csv", "markdown", "latex"], Query(alias="format")] = "json",
) -> Any:
    """Return one table for each data, setting and protocol: all of them, or those that are named."""
    which = which_of(dataset, category, setting, protocol, detector, seed)
    tables = made(house, which, tuple(metric), by, tuple(reported), intervals=intervals, percent=percent)
    if form != "json":
        headers = {"Content-Disposition": f'attachment; filename="leaderboard.{ENDINGS[form]}"'}
        return Response(table.FORMATS[form](tables), headers=headers, media_type=f"{MEDIA[form]}; charset=utf-8")
    now = house.library.now()
    return {
        "tables": json.loads(table.to_json(tables)),
        "choices": house.library.choices(),
        "reported": list(published.sources()),
        "runs": len(now.runs),
        "damaged": list(now.damaged.values()),
    }


def which_of(*given: Sequence[Any]) -> Which:
    """Return which runs a request means, from the lists of its query in the order of :class:`Which`."""
    return Which(*(tuple(values) for values in given))


def made(
    house: House, which: Which, metrics: tuple[str, ...] = (), by: str = "metric", reported: tuple[str, ...] = (),
    *, intervals: bool = False, percent: bool = False,
) -> list[table.Table]:  # fmt: skip
    """Return the tables that are meant."""
    for name in reported:
        if name not in published.sources():
            hint = did_you_mean(name, published.sources())
            raise UnknownName(f"no published numbers are named {name!r}.{hint}")
    if intervals and len(house.library.select(which)) > SCORED:
        raise BadConfig(f"intervals are for up to {SCORED} runs. Choose a dataset.")
    found = house.library.comparisons(which, scores=intervals)
    _check(metrics, found)
    style = Style(percent=percent)
    if by == "metric":
        return [ranking_of(c, metrics, style, reported, intervals=intervals) for c in found]
    wanted = metrics or ("image_auroc",)
    pairs = [(c, m) for c in found for m in wanted if m in c.metrics or len(found) == 1]
    return [by_category_of(c, m, style, reported, intervals=intervals) for c, m in pairs]


def _check(metrics: tuple[str, ...], found: tuple[Comparison, ...]) -> None:
    have = sorted({m for c in found for m in c.metrics})
    for name in metrics:
        if name not in have:
            raise UnknownName(
                f"no run has the metric {name!r}.{did_you_mean(name, have)} There are: {', '.join(have)}."
            )
