"""Statistics for the leaderboard: confidence intervals, rank tests and the accuracy–cost Pareto front."""

from __future__ import annotations

import math
import threading
from functools import partial
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel, Field

from iadbe.errors import UnknownName
from iadbe.evaluation.confidence import differ_significantly
from iadbe.metric import resamplable
from iadbe.report import charts, summary
from iadbe.results.builder import entry_interval, entry_samples, ranks_of, sorted_entries
from iadbe.results.comparison import Comparison
from iadbe.results.entry import COSTS
from iadbe.results.index import RunQuery
from iadbe.results.style import Style, label, lower_is_better
from iadbe.web.cancellation import Cancelled, stop_if
from iadbe.web.leaderboard import Names, compared, run_query
from iadbe.web.runs import finite
from iadbe.web.state import Server

router = APIRouter(prefix="/leaderboard", tags=["leaderboard"])
DEFAULT_METRIC = "image_auroc"


class ComparisonKey(BaseModel):
    """Identifies one comparison: data, setting, protocol and metric."""

    title: str
    dataset: str
    setting: str
    protocol: str
    metric: str


class IntervalEntry(BaseModel):
    """The confidence interval of one detector's metric."""

    name: str
    value: float
    low: float = Field(description="lower end of the 95 % confidence interval (docs/intervals.md)")
    high: float
    level: bool = Field(description="not significantly different from the best detector")


class Intervals(ComparisonKey):
    """Confidence intervals of one metric."""

    sentence: str = Field(description="summary in one sentence; about the image AUROC")
    entries: list[IntervalEntry] = Field(description="empty where the bootstrap does not apply, as for pixel metrics")


class TradeoffPoint(BaseModel):
    """A detector's metric beside its costs."""

    name: str
    value: float
    costs: dict[str, float] = Field(description=f"by {', '.join(COSTS)}")
    front: list[str] = Field(description="the costs for which it is on the Pareto front")


class Tradeoff(ComparisonKey):
    """Accuracy against cost."""

    label: str
    lower_is_better: bool
    points: list[TradeoffPoint]


class RankSummary(ComparisonKey):
    """Mean ranks over categories, with significance tests."""

    label: str
    names: list[str] = Field(description="best first")
    mean: list[float]
    letters: list[str] = Field(description="detectors that share a letter do not differ significantly")
    p: list[list[float]] = Field(description="p values of each pair: Wilcoxon signed-rank test, Holm-corrected")
    critical: float = Field(description="Nemenyi's critical difference")
    friedman: float | None = Field(description="p value of the Friedman test")
    sentence: str


class MetricQuery(NamedTuple):
    """RunQuery runs and which metrics."""

    which: RunQuery
    metrics: tuple[str, ...]


def _query(
    dataset: Names = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    metric: Annotated[list[str], Query(description=f"{DEFAULT_METRIC} by default")] = [],  # noqa: B006
) -> MetricQuery:
    return MetricQuery(
        run_query(dataset, category, setting, protocol, detector, seed), tuple(metric) or (DEFAULT_METRIC,)
    )


ComparedMetrics = Annotated[MetricQuery, Depends(_query)]


@router.get("/intervals", response_model=list[Intervals])
def intervals(server: Server, query: ComparedMetrics, cancelled: Cancelled) -> Any:
    """Return 95 % intervals, and which detectors do not differ significantly from the best."""
    found = compared(server, query.which, scores=True, cancelled=cancelled)
    return [
        {**_key(c, m), "sentence": summary, "entries": interval_entries(c, m, cancelled)}
        for c, summary in [(c, sentence(c)) for c in found]
        for m in _metrics_of(c, query.metrics, found)
    ]


@router.get("/tradeoffs", response_model=list[Tradeoff])
def tradeoffs(server: Server, query: ComparedMetrics) -> Any:
    """Return accuracy against time, memory and size, with the Pareto front for each cost."""
    found = compared(server, query.which)
    return [
        {**_key(c, m), "label": label(m), "lower_is_better": lower_is_better(m), "points": tradeoff_points(c, m)}
        for c in found
        for m in _metrics_of(c, query.metrics, found)
    ]


@router.get("/ranks", response_model=list[RankSummary])
def ranks(server: Server, query: ComparedMetrics) -> Any:
    """Return mean ranks over categories, for comparisons with at least two detectors and three categories."""
    listed = []
    found = compared(server, query.which)
    for comparison in found:
        for metric in _metrics_of(comparison, query.metrics, found):
            if (ranks_ := ranks_of(comparison, metric)) is not None:
                given = {n: getattr(ranks_, n) for n in ("names", "mean", "letters", "p", "critical", "sentence")}
                more = {"label": label(metric), "friedman": finite(ranks_.friedman)}
                listed.append({**_key(comparison, metric), **given, **more})
    return listed


def tradeoff_points(comparison: Comparison, metric: str) -> list[dict[str, Any]]:
    """Return the detectors that have a number in every category, with costs and Pareto fronts."""
    sign = -1 if lower_is_better(metric) else 1
    points: list[dict[str, Any]] = []
    for entry in sorted_entries(comparison, metric):
        mean = comparison.mean(entry, metric)
        if mean.ranked:
            costs = {c: v for c in COSTS if math.isfinite(v := entry.cost(c))}
            points.append({"name": entry.name, "value": mean.value, "costs": costs, "front": []})
    for cost in COSTS:
        have = [p for p in points if cost in p["costs"]]
        for i in charts.pareto_front([(p["costs"][cost], sign * p["value"]) for p in have]):
            have[i]["front"].append(cost)
    return points


def interval_entries(
    comparison: Comparison, metric: str, cancelled: threading.Event | None = None
) -> list[dict[str, Any]]:
    """Return the intervals of an image metric; empty where the bootstrap does not apply."""
    if resamplable(metric) is None:
        return []
    first, listed = None, []
    for entry in sorted_entries(comparison, metric):
        stop_if(cancelled)
        mean, between = comparison.mean(entry, metric), entry_interval(comparison, entry, metric)
        samples = entry_samples(comparison, entry, metric, partial(stop_if, cancelled))
        if not mean.ranked or between is None or samples is None:
            continue
        first = samples if first is None else first
        is_level = first is samples or not differ_significantly(first, samples)
        low, high = between
        listed.append({"name": entry.name, "value": mean.value, "low": low, "high": high, "level": bool(is_level)})
    return listed


def sentence(comparison: Comparison, style: Style | None = None) -> str:
    """Return a summary in one sentence, with significance where the comparison has scores."""
    return summary.summarise(comparison, style).sentence


def _metrics_of(comparison: Comparison, metrics: tuple[str, ...], every: tuple[Comparison, ...]) -> list[str]:
    known = {m for c in every for m in c.metrics}
    for metric in metrics:
        if metric not in known:
            raise UnknownName(f"no run has the metric {metric!r}. There are: {', '.join(sorted(known))}.")
    return [m for m in metrics if m in comparison.metrics]


def _key(comparison: Comparison, metric: str) -> dict[str, Any]:
    words = {n: getattr(comparison, n) for n in ("title", "dataset", "setting", "protocol")}
    return {**words, "metric": metric}
