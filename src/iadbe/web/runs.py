"""Routes for runs: the list, and a run's result, scores, curves, losses and log."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path as File
from statistics import fmean
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from iadbe.errors import UnknownName
from iadbe.report.gallery import best_threshold
from iadbe.results.entry import last_scores
from iadbe.running.store import RESULT, images_index
from iadbe.types import UNLABELLED, RunResult
from iadbe.web.leaderboard import Names, run_query
from iadbe.web.run_cache import CachedRun
from iadbe.web.state import Server

router = APIRouter(tags=["runs"])
Name = Annotated[str, Path(description="a run's id, or its folder's name", max_length=200)]
SORTS = ("date", "detector", "dataset", "task", "setting", "seed", "latency_ms", "fit_seconds")
TAIL_BYTES = 256 * 1024  # bytes of a log in one response
MAX_POINTS = 400  # points of a curve
CURVES, LOSSES = "curves.json", "losses.csv"  # files in a run's folder


class Run(BaseModel):
    """A run in a list."""

    id: str
    folder: str
    detector: str
    dataset: str
    task: str
    setting: str
    protocol: str
    seed: int
    date: str
    error: str = Field(description="empty: the run succeeded")
    values: dict[str, float | None] = Field(description="metrics, mean over tests after the last step")
    latency_ms: float | None = Field(description="milliseconds per image")
    fit_seconds: float | None
    peak_bytes: int | None
    model_bytes: int | None
    has_model: bool
    has_images: bool


class RunList(BaseModel):
    """One page of the runs."""

    total: int
    runs: list[Run]


class Score(BaseModel):
    """Score of one test image."""

    test: str
    sample: str
    category: str
    defect: str
    score: float | None


class ScoreList(BaseModel):
    """Scores of a run's test images after its last step, with the threshold of the best F1 for each test."""

    scores: list[Score]
    thresholds: dict[str, float | None]


class OperatingPoint(BaseModel):
    """One threshold and its error rates."""

    threshold: float
    recall: float = Field(description="share of the defective images that are rejected: 1 - escape rate")
    overkill: float = Field(description="false positive rate: share of the good images that are rejected")
    precision: float


class ProPoint(BaseModel):
    """One point of the PRO curve."""

    overkill: float = Field(description="false positive rate over pixels")
    overlap: float = Field(description="per-region overlap, mean over defects")


class Curve(BaseModel):
    """Operating points of one test, from the highest threshold to the lowest, for ROC and precision-recall curves."""

    test: str
    good: int
    defective: int
    points: list[OperatingPoint]
    regions: list[ProPoint] = Field([], description="the PRO curve, where the run has stored it")


class LossPoint(BaseModel):
    """The loss at one step of training."""

    step: int
    loss: float


class LogChunk(BaseModel):
    """A part of a run's log."""

    text: str
    start: int = Field(description="offset of the text in the log, in bytes")
    end: int = Field(description="offset after the text, in bytes")


@router.get("/runs", response_model=RunList)
def runs(
    server: Server,
    dataset: Names = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    state: Annotated[Literal["all", "well", "failed"], Query()] = "all",
    find: Annotated[str, Query(description="part of the folder's name", max_length=200)] = "",
    sort: Annotated[str, Query(description=f"one of {', '.join(SORTS)}, or a metric; -NAME: descending")] = "-date",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Any:
    """List runs."""
    chosen = server.run_cache.select(run_query(dataset, category, setting, protocol, detector, seed))
    chosen = [s for s in chosen if state == "all" or bool(s.result.error) == (state == "failed")]
    chosen = [s for s in chosen if find.lower() in s.folder.lower()] if find else chosen
    name, descending = sort.removeprefix("-"), sort.startswith("-")
    if name not in SORTS and name not in server.run_cache.choices()["metric"]:
        raise UnknownName(f"runs cannot be sorted by {name!r}. There are: {', '.join(SORTS)}, and their metrics.")
    keyed = [(_sort_key(s, name), s) for s in chosen]
    ordered = sorted((k for k in keyed if k[0] is not None), key=lambda k: k[0], reverse=descending)  # type: ignore[arg-type,return-value]
    ordered += [k for k in keyed if k[0] is None]  # runs without a number come last in both orders
    root = server.store.root
    shown = [row_of(s, root / s.folder) for _, s in ordered[offset : offset + limit]]
    return {"total": len(ordered), "runs": shown}


@router.get("/runs/{run}", response_model=dict[str, Any])
def run(server: Server, run: Name) -> Any:
    """Return a run's `result.json`, and whether its folder holds a model and images."""
    cached = server.run_cache.run(run)
    folder = server.store.root / cached.folder
    raw: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return {**raw, **row_of(cached, folder), "seconds": raw["seconds"], "run": raw["run"]}


@router.get("/runs/{run}/scores", response_model=ScoreList)
def scores(server: Server, run: Name) -> Any:
    """Return the scores of a run's test images."""
    result = server.run_cache.loaded(run)
    found = last_scores(result)
    limits = {t: best_threshold(*_truth(result, t)) for t in dict.fromkeys(s.test for s in found)}
    listed = [{**s._asdict(), "score": finite(s.score)} for s in found]
    return {"scores": listed, "thresholds": limits}


@router.get("/runs/{run}/curves", response_model=list[Curve])
def curves(server: Server, run: Name) -> Any:
    """Return recall, overkill and precision over all thresholds, and the PRO curve where it was stored."""
    result, folder = server.run_cache.loaded(run), server.run_cache.path(run)
    tests = dict.fromkeys(s.test for s in last_scores(result))
    return [{**_curve(result, test), "regions": pro_curve(folder, test)} for test in tests]


@router.get("/runs/{run}/losses", response_model=list[LossPoint])
def losses(server: Server, run: Name) -> Any:
    """Return the training losses; empty for a detector without a training loop."""
    try:
        with (server.run_cache.path(run) / LOSSES).open(newline="", encoding="utf-8") as file:
            found = [{"step": int(row["step"]), "loss": float(row["loss"])} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError):  # the rest of the page does not depend on the losses
        return []
    return [loss for loss in found if math.isfinite(loss["loss"])]


def pro_curve(folder: File, test: str) -> list[dict[str, float]]:
    """Return the stored PRO curve of a test; empty where there is none."""
    try:
        kept = json.loads((folder / CURVES).read_text(encoding="utf-8"))[test]
        pairs = [(float(x), float(y)) for x, y in zip(kept["overkill"], kept["overlap"], strict=True)]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [{"overkill": x, "overlap": y} for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


@router.get("/runs/{run}/log", response_model=LogChunk)
def log(
    server: Server,
    run: Name,
    start: Annotated[
        int, Query(ge=-(10**12), le=10**12, description="offset in bytes; below 0: from the end")
    ] = -TAIL_BYTES,
) -> Any:
    """Return a part of a run's log."""
    cached = server.run_cache.run(run)
    return read_log(server.store.log(cached.result.spec), start)


def read_log(file: Any, start: int, most: int = TAIL_BYTES) -> dict[str, Any]:
    """Return a part of a log file; empty where there is none."""
    try:
        with file.open("rb") as opened:
            size = file.stat().st_size
            start = max(0, size + start) if start < 0 else min(start, size)
            opened.seek(start)
            data = opened.read(most)
    except OSError:
        return {"text": "", "start": 0, "end": 0}
    return {"text": data.decode("utf-8", "replace"), "start": start, "end": start + len(data)}


def values_of(result: RunResult) -> dict[str, float | None]:
    """Return a run's metrics, mean over tests after the last step."""
    last = max((r.step for r in result.rows), default=0)
    found: dict[str, list[float]] = {}
    for row in result.rows:
        if row.step == last:
            found.setdefault(row.metric, []).append(row.value)
    return {metric: finite(fmean(values)) for metric, values in found.items()}


def finite(value: float | None) -> float | None:
    """Return a finite number, else None, because JSON has no NaN."""
    return value if value is not None and math.isfinite(value) else None


def row_of(cached: CachedRun, folder: Any) -> dict[str, Any]:
    """Return a run's entry in a list."""
    result = cached.result
    spec = result.spec
    words = {n: getattr(spec, n) for n in ("detector", "dataset", "task", "setting", "protocol", "seed")}
    return {
        **words,
        "id": cached.id,
        "folder": cached.folder,
        "date": str(result.environment.get("date", "")),
        "error": result.error,
        "values": values_of(result),
        "latency_ms": finite(result.latency_ms),
        "fit_seconds": result.seconds.get("fit"),
        "peak_bytes": result.memory.get("peak"),
        "model_bytes": result.memory.get("model"),
        "has_model": (folder / "model" / "detector.json").is_file(),
        "has_images": images_index(folder).is_file(),
    }


def _sort_key(cached: CachedRun, name: str) -> str | float | None:
    result = cached.result
    if name == "date":
        return str(result.environment.get("date", ""))
    if name == "latency_ms":
        return finite(result.latency_ms)
    if name == "fit_seconds":
        return result.seconds.get("fit")
    if name in SORTS:
        return getattr(result.spec, name)
    last = max((r.step for r in result.rows), default=0)
    values = [r.value for r in result.rows if r.metric == name and r.step == last]
    return finite(fmean(values)) if values else None


def _truth(result: RunResult, test: str) -> tuple[np.ndarray, np.ndarray]:
    found = [s for s in last_scores(result) if s.test == test and s.defect != UNLABELLED]
    return np.array([s.defect != "good" for s in found], bool), np.array([s.score for s in found], float)


def _curve(result: RunResult, test: str) -> dict[str, Any]:
    truth, score = _truth(result, test)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    about = {"test": test, "good": negatives, "defective": positives}
    if not positives or not negatives or not np.isfinite(score).all():
        return {**about, "points": []}
    thresholds = np.unique(score)[::-1]
    if len(thresholds) > MAX_POINTS:  # thinned evenly, with both ends
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, MAX_POINTS).round().astype(int))]
    bad, good = np.sort(score[truth]), np.sort(score[~truth])
    found = positives - np.searchsorted(bad, thresholds)
    wrong = negatives - np.searchsorted(good, thresholds)
    columns = zip(thresholds, found / positives, wrong / negatives, found / (found + wrong), strict=True)
    names = ("threshold", "recall", "overkill", "precision")
    return {**about, "points": [dict(zip(names, map(float, column), strict=True)) for column in columns]}
