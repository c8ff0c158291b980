"""Compares two to six runs: metrics, significance of differences, and the verdict on each test image.

Significance is computed on the images that all runs were tested on: 95 % intervals of the paired bootstrap
(:mod:`iadbe.evaluation.confidence`) for metrics, and McNemar's exact test for verdicts at each run's best F1 threshold.
"""

from __future__ import annotations

from itertools import combinations
from math import comb
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from iadbe.errors import BadConfig
from iadbe.evaluation.confidence import CategoryScores, bootstrap, category_scores, percentile_interval
from iadbe.metric import CountMetric, resamplable
from iadbe.report.gallery import best_threshold, verdict
from iadbe.results.entry import last_scores
from iadbe.results.style import label, lower_is_better
from iadbe.types import RunResult, Score
from iadbe.web.runs import Run, finite, row_of
from iadbe.web.state import Server

router = APIRouter(tags=["runs"])
MAX_RUNS = 6
CORRECT = ("caught", "passed")


class MetricValues(BaseModel):
    """One metric of every run."""

    metric: str
    label: str
    lower_is_better: bool
    values: list[float | None] = Field(description="in the order of the runs")


class Difference(BaseModel):
    """Difference of a metric between two runs, on their shared images."""

    first: int = Field(description="index of the run")
    second: int
    metric: str
    label: str
    value: float
    low: float = Field(description="lower end of the 95 % interval")
    high: float
    significant: bool = Field(description="the interval does not contain 0")


class Disagreement(BaseModel):
    """How many images only one of two runs classifies correctly."""

    first: int
    second: int
    only_first: int = Field(description="images that only the first classifies correctly")
    only_second: int
    p: float = Field(description="p value of McNemar's exact test that both err equally often")


class SampleComparison(BaseModel):
    """One test image with the score and verdict of every run."""

    test: str
    sample: str
    category: str
    defect: str
    scores: list[float]
    verdicts: list[str] = Field(description="caught, missed, passed or false alarm; empty without a threshold")
    agreed: bool = Field(description="all runs are right, or all are wrong")


class RunComparison(BaseModel):
    """A comparison of runs."""

    runs: list[Run]
    numbers: list[MetricValues]
    differences: list[Difference]
    disagreements: list[Disagreement]
    samples: list[SampleComparison] = Field(description="the images that all runs were tested on")
    thresholds: list[dict[str, float | None]] = Field(description="for each run, by test: the threshold of the best F1")


@router.get("/comparisons", response_model=RunComparison)
def comparison(
    server: Server, run: Annotated[list[str], Query(description="two to six runs' ids", max_length=MAX_RUNS)]
) -> Any:
    """Compare runs."""
    names = list(dict.fromkeys(run))
    if len(names) < 2:
        raise BadConfig("name two to six runs to compare: ?run=A&run=B")
    cached = [server.run_cache.run(name) for name in names]
    results = [server.run_cache.loaded(name) for name in names]
    rows = [row_of(s, server.store.root / s.folder) for s in cached]
    thresholds = [_thresholds(r) for r in results]
    samples = compared_samples(results, thresholds)
    return {
        "runs": rows,
        "numbers": _numbers(rows),
        "differences": differences(samples, [m for m in rows[0]["values"] if all(m in r["values"] for r in rows)]),
        "disagreements": disagreements(samples, len(names)),
        "samples": samples,
        "thresholds": thresholds,
    }


def compared_samples(results: list[RunResult], thresholds: list[dict[str, float | None]]) -> list[dict[str, Any]]:
    """Return the images that all runs were tested on, those they disagree about first."""
    tables = [{(s.test, s.sample): s for s in last_scores(r) if np.isfinite(s.score)} for r in results]
    found = []
    for key, one in tables[0].items():
        if not all(key in t and t[key].defect == one.defect for t in tables):
            continue
        scores = [t[key].score for t in tables]
        verdicts = [verdict(one.defect != "good", s, own[one.test]) for s, own in zip(scores, thresholds, strict=True)]
        right = {word in CORRECT for word in verdicts}
        words = {n: getattr(one, n) for n in ("test", "sample", "category", "defect", "group")}
        found.append({**words, "scores": scores, "verdicts": verdicts, "agreed": len(right) == 1})
    return sorted(found, key=lambda s: (s["agreed"], s["test"], s["sample"]))


def differences(samples: list[dict[str, Any]], metrics: list[str]) -> list[dict[str, Any]]:
    """Return the differences between all pairs of runs, for every image metric that the bootstrap supports."""
    found = []
    for metric in metrics:
        if (definition := resamplable(metric)) is None:
            continue
        resamples = [bootstrap(cases, metric=definition) for cases in _cases(samples)]
        exact = [_value(cases, definition) for cases in _cases(samples)]
        for first, second in combinations(range(len(resamples)), 2):
            gaps = resamples[first] - resamples[second]
            if not np.isfinite(gaps).all():
                continue
            low, high = percentile_interval(gaps)
            words = {"first": first, "second": second, "metric": metric, "label": label(metric)}
            significant = bool(low > 0 or high < 0)
            found.append(
                {**words, "value": exact[first] - exact[second], "low": low, "high": high, "significant": significant}
            )
    return found


def disagreements(samples: list[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Return for all pairs of runs how many images only one of them classifies correctly."""
    right = [[word in CORRECT for word in s["verdicts"]] for s in samples if all(s["verdicts"])]
    found = []
    for first, second in combinations(range(count), 2):
        a = sum(r[first] and not r[second] for r in right)
        b = sum(r[second] and not r[first] for r in right)
        found.append({"first": first, "second": second, "only_first": a, "only_second": b, "p": mcnemar(a, b)})
    return found


def mcnemar(a: int, b: int) -> float:
    """Return the exact two-sided p value of McNemar's test for the discordant counts ``a`` and ``b``."""
    count = a + b
    return min(1.0, 2 * sum(comb(count, k) for k in range(min(a, b) + 1)) / 2**count)


def _cases(samples: list[dict[str, Any]]) -> list[list[CategoryScores]]:
    """Return each run's cases for the bootstrap, one for each test."""
    by_test: dict[str, list[dict[str, Any]]] = {}
    for sample in sorted(samples, key=lambda s: s["test"]):
        by_test.setdefault(sample["test"], []).append(sample)
    count = len(samples[0]["scores"]) if samples else 0

    def scores(some: list[dict[str, Any]], n: int) -> CategoryScores:
        images = ((s["sample"], s["defect"] != "good", [s["scores"][n]]) for s in some)
        return category_scores(images, {s["sample"]: s.get("group", "") for s in some})

    return [[scores(some, n) for some in by_test.values()] for n in range(count)]


def _value(cases: list[CategoryScores], definition: CountMetric) -> float:
    from iadbe.curves.curve import Curve

    usable = [c for c in cases if c.truth.any() and not c.truth.all()]
    return float(np.mean([definition.value(Curve(c.truth, c.score[0])) for c in usable])) if usable else float("nan")


def _thresholds(result: RunResult) -> dict[str, float | None]:
    by_test: dict[str, list[Score]] = {}
    for score in last_scores(result):
        by_test.setdefault(score.test, []).append(score)
    return {
        test: best_threshold(np.array([s.defect != "good" for s in some]), np.array([s.score for s in some]))
        for test, some in by_test.items()
    }


def _numbers(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    metrics = dict.fromkeys(m for row in rows for m in row["values"])
    return [
        {
            "metric": m,
            "label": label(m),
            "lower_is_better": lower_is_better(m),
            "values": [finite(row["values"].get(m)) for row in rows],
        }
        for m in metrics
    ]
