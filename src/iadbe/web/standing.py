"""Beside a leaderboard's numbers: who cannot be told apart, by images and by ranks, and what accuracy costs."""

from __future__ import annotations

import math
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from iadbe.errors import IadbeError, UnknownName
from iadbe.evaluation.confidence import bootstrap, differ_significantly
from iadbe.metric import EXACT, CountMetric, parse
from iadbe.report import charts, summary
from iadbe.results.builder import metric_interval, ranks_of, sorted_entries
from iadbe.results.comparison import COSTS, Comparison
from iadbe.results.index import RunQuery
from iadbe.results.style import Style, label, lower_is_better
from iadbe.web.house import Here
from iadbe.web.leaderboard import Names, check_scored, compared, which_of
from iadbe.web.runs import finite

router = APIRouter(prefix="/leaderboard", tags=["leaderboard"])
USUAL = "image_auroc"


class About(BaseModel):
    """What stands side by side."""

    title: str
    dataset: str
    setting: str
    protocol: str
    metric: str


class Sure(BaseModel):
    """How sure one detector's number is."""

    name: str
    value: float
    low: float = Field(description="lower end of the 95 % interval from drawing the test images anew")
    high: float
    level: bool = Field(description="cannot be told apart from the best on these images")


class Intervals(About):
    """The intervals of one metric."""

    sentence: str = Field(description="the answer in one sentence; about the image AUROC")
    entries: list[Sure] = Field(description="empty where images cannot tell, as for pixel metrics")


class Placed(BaseModel):
    """A detector's number beside its costs."""

    name: str
    value: float
    costs: dict[str, float] = Field(description=f"by {', '.join(COSTS)}")
    front: list[str] = Field(description="the costs for which no other is both cheaper and better")


class Tradeoff(About):
    """What accuracy costs."""

    label: str
    lower_is_better: bool
    points: list[Placed]


class Ranked(About):
    """Mean ranks over categories, and which of them differ."""

    label: str
    names: list[str] = Field(description="best first")
    mean: list[float]
    letters: list[str] = Field(description="who shares one cannot be told apart")
    p: list[list[float]] = Field(description="of each pair: Wilcoxon's signed-rank test, Holm-corrected")
    critical: float = Field(description="Nemenyi's critical difference")
    friedman: float | None = Field(description="p that all are alike")
    sentence: str


class Asked(NamedTuple):
    """Which runs and which metrics."""

    which: RunQuery
    metrics: tuple[str, ...]


def _asked(
    dataset: Names = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    metric: Annotated[list[str], Query(description=f"{USUAL} by default")] = [],  # noqa: B006
) -> Asked:
    return Asked(which_of(dataset, category, setting, protocol, detector, seed), tuple(metric) or (USUAL,))


Wanted = Annotated[Asked, Depends(_asked)]


@router.get("/intervals", response_model=list[Intervals])
def intervals(house: Here, asked: Wanted) -> Any:
    """Return 95 % intervals and who is level with the best. It reads every score, which takes a moment."""
    check_scored(house, asked.which)
    found = compared(house, asked.which, scores=True)
    return [
        {**_about(c, m), "sentence": told, "entries": sure(c, m)}
        for c, told in [(c, sentence(c)) for c in found]
        for m in _have(c, asked.metrics, found)
    ]


@router.get("/tradeoffs", response_model=list[Tradeoff])
def tradeoffs(house: Here, asked: Wanted) -> Any:
    """Return accuracy beside time, memory and size, with the Pareto front of each."""
    found = compared(house, asked.which)
    return [
        {**_about(c, m), "label": label(m), "lower_is_better": lower_is_better(m), "points": placed(c, m)}
        for c in found
        for m in _have(c, asked.metrics, found)
    ]


@router.get("/ranks", response_model=list[Ranked])
def ranks(house: Here, asked: Wanted) -> Any:
    """Return mean ranks, where there are two detectors and three categories or more."""
    listed = []
    found = compared(house, asked.which)
    for comparison in found:
        for metric in _have(comparison, asked.metrics, found):
            if (made := ranks_of(comparison, metric)) is not None:
                given = {n: getattr(made, n) for n in ("names", "mean", "letters", "p", "critical", "sentence")}
                more = {"label": label(metric), "friedman": finite(made.friedman)}
                listed.append({**_about(comparison, metric), **given, **more})
    return listed


def placed(comparison: Comparison, metric: str) -> list[dict[str, Any]]:
    """Return the detectors that have a number in every category, with costs, and on which fronts they are."""
    sign = -1 if lower_is_better(metric) else 1
    points: list[dict[str, Any]] = []
    for entry in sorted_entries(comparison, metric):
        mean = comparison.mean(entry, metric)
        if mean.complete:
            costs = {c: v for c in COSTS if math.isfinite(v := entry.cost(c))}
            points.append({"name": entry.name, "value": mean.value, "costs": costs, "front": []})
    for cost in COSTS:
        have = [p for p in points if cost in p["costs"]]
        for i in charts.pareto_front([(p["costs"][cost], sign * p["value"]) for p in have]):
            have[i]["front"].append(cost)
    return points


def sure(comparison: Comparison, metric: str) -> list[dict[str, Any]]:
    """Return the intervals of an image metric; nothing of one for which images cannot tell."""
    try:
        level, way = parse(metric)
    except (IadbeError, ImportError):
        return []
    if level != "image" or way.dialect != EXACT or not isinstance(way, CountMetric):
        return []
    first, listed = None, []
    for entry in sorted_entries(comparison, metric):
        cases = [c for found in entry.cases.values() for c in found]
        mean, between = comparison.mean(entry, metric), metric_interval(cases, metric)
        if not mean.complete or between is None:
            continue
        samples = bootstrap(cases, metric=way)
        first = samples if first is None else first
        is_level = first is samples or not differ_significantly(first, samples)
        low, high = between
        listed.append({"name": entry.name, "value": mean.value, "low": low, "high": high, "level": bool(is_level)})
    return listed


def sentence(comparison: Comparison, style: Style | None = None) -> str:
    """Return the answer in one sentence; how sure it is, only where the comparison has scores."""
    return summary.summarise(comparison, style).sentence


def _have(comparison: Comparison, metrics: tuple[str, ...], every: tuple[Comparison, ...]) -> list[str]:
    known = {m for c in every for m in c.metrics}
    for metric in metrics:
        if metric not in known:
            raise UnknownName(f"no run has the metric {metric!r}. There are: {', '.join(sorted(known))}.")
    return [m for m in metrics if m in comparison.metrics]


def _about(comparison: Comparison, metric: str) -> dict[str, Any]:
    words = {n: getattr(comparison, n) for n in ("title", "dataset", "setting", "protocol")}
    return {**words, "metric": metric}
