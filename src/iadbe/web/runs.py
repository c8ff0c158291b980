"""Single runs: listed, and one of them in whole with its scores, curves and log."""

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
from iadbe.results.comparison import last_scores
from iadbe.running.store import RESULT, images_index
from iadbe.types import RunResult
from iadbe.web.house import Here
from iadbe.web.leaderboard import Names, which_of
from iadbe.web.library import Shelved

router = APIRouter(tags=["runs"])
Name = Annotated[str, Path(description="a run's id, or its folder's name", max_length=200)]
SORTS = ("date", "detector", "dataset", "task", "setting", "seed", "latency_ms", "fit_seconds")
TAIL = 256 * 1024  # bytes of a log in one answer
POINTS = 400  # of a curve
CURVES, LOSSES = "curves.json", "losses.csv"  # as runs keep them


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
    error: str = Field(description="empty: it went well")
    values: dict[str, float | None] = Field(description="by metric, the mean over its tests after the last step")
    latency_ms: float | None = Field(description="of one image")
    fit_seconds: float | None
    peak_bytes: int | None
    model_bytes: int | None
    has_model: bool
    has_images: bool


class Runs(BaseModel):
    """A part of a list."""

    total: int
    runs: list[Run]


class Score(BaseModel):
    """What a run says of one test image."""

    test: str
    sample: str
    category: str
    defect: str
    score: float | None


class Scores(BaseModel):
    """All test images of a run after its last step, with the threshold of the best F1 for each test."""

    scores: list[Score]
    thresholds: dict[str, float | None]


class Point(BaseModel):
    """What a threshold does."""

    threshold: float
    recall: float = Field(description="share of the defects that are found: 1 - escape")
    overkill: float = Field(description="share of the good images that are rejected")
    precision: float


class Region(BaseModel):
    """One point of the PRO curve."""

    overkill: float = Field(description="share of the clean pixels that are flagged")
    overlap: float = Field(description="share of each defect's pixels that are flagged, mean over defects")


class Curve(BaseModel):
    """One test's trade-off, from the highest threshold to the lowest: ROC and PR are read off it."""

    test: str
    good: int
    defective: int
    points: list[Point]
    regions: list[Region] = Field([], description="the PRO curve, of runs that have kept it")


class Loss(BaseModel):
    """The loss at one step of training."""

    step: int
    loss: float


class Log(BaseModel):
    """A piece of what a run has printed."""

    text: str
    start: int = Field(description="where in the log the text begins, in bytes")
    end: int = Field(description="where to go on reading")


@router.get("/runs", response_model=Runs)
def runs(
    house: Here,
    dataset: Names = [],  # noqa: B006
    setting: Names = [],  # noqa: B006
    protocol: Names = [],  # noqa: B006
    detector: Names = [],  # noqa: B006
    category: Names = [],  # noqa: B006
    seed: Annotated[list[int], Query()] = [],  # noqa: B006
    state: Annotated[Literal["all", "well", "failed"], Query()] = "all",
    find: Annotated[str, Query(description="a part of the folder's name", max_length=200)] = "",
    sort: Annotated[str, Query(description=f"one of {', '.join(SORTS)}, or a metric; -NAME: falling")] = "-date",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Any:
    """List runs."""
    chosen = house.library.select(which_of(dataset, category, setting, protocol, detector, seed))
    chosen = [s for s in chosen if state == "all" or bool(s.result.error) == (state == "failed")]
    chosen = [s for s in chosen if find.lower() in s.folder.lower()]
    name, falling = sort.removeprefix("-"), sort.startswith("-")
    every = house.library.now().runs.values()
    if name not in SORTS and not any(r.metric == name for s in every for r in s.result.rows):
        raise UnknownName(f"runs cannot be sorted by {name!r}. There are: {', '.join(SORTS)}, and their metrics.")
    keyed = [(_key(s, name), s) for s in chosen]
    ordered = sorted((k for k in keyed if k[0] is not None), key=lambda k: k[0], reverse=falling)  # type: ignore[arg-type,return-value]
    ordered += [k for k in keyed if k[0] is None]  # what has no number is last either way
    root = house.store.root
    shown = [row_of(s, (root / s.folder)) for _, s in ordered[offset : offset + limit]]
    return {"total": len(ordered), "runs": shown}


@router.get("/runs/{run}", response_model=dict[str, Any])
def run(house: Here, run: Name) -> Any:
    """Return everything that is known of a run: its `result.json`, and what its folder holds beside it."""
    shelved = house.library.run(run)
    folder = house.store.root / shelved.folder
    raw: dict[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return {**raw, **row_of(shelved, folder), "seconds": raw["seconds"], "run": raw["run"]}


@router.get("/runs/{run}/scores", response_model=Scores)
def scores(house: Here, run: Name) -> Any:
    """Return the scores of a run's test images."""
    result = house.library.loaded(run)
    found = last_scores(result)
    limits = {t: best_threshold(*_truth(result, t)) for t in dict.fromkeys(s.test for s in found)}
    listed = [{**s._asdict(), "score": finite(s.score)} for s in found]
    return {"scores": listed, "thresholds": limits}


@router.get("/runs/{run}/curves", response_model=list[Curve])
def curves(house: Here, run: Name) -> Any:
    """Return how many defects are found, at the price of how many good images, for falling thresholds."""
    result, folder = house.library.loaded(run), house.library.path(run)
    tests = dict.fromkeys(s.test for s in last_scores(result))
    return [{**_curve(result, test), "regions": regions(folder, test)} for test in tests]


@router.get("/runs/{run}/losses", response_model=list[Loss])
def losses(house: Here, run: Name) -> Any:
    """Return a run's losses; none of a detector that does not train."""
    try:
        with (house.library.path(run) / LOSSES).open(newline="", encoding="utf-8") as file:
            found = [{"step": int(row["step"]), "loss": float(row["loss"])} for row in csv.DictReader(file)]
    except (OSError, ValueError, KeyError, TypeError):  # what is not there or damaged is no reason to show nothing else
        return []
    return [loss for loss in found if math.isfinite(loss["loss"])]


def regions(folder: File, test: str) -> list[dict[str, float]]:
    """Return the PRO curve that a run has kept of a test; nothing where there is none."""
    try:
        kept = json.loads((folder / CURVES).read_text(encoding="utf-8"))[test]
        pairs = [(float(x), float(y)) for x, y in zip(kept["overkill"], kept["overlap"], strict=True)]
    except (OSError, ValueError, LookupError, TypeError):
        return []
    return [{"overkill": x, "overlap": y} for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


@router.get("/runs/{run}/log", response_model=Log)
def log(
    house: Here,
    run: Name,
    start: Annotated[
        int, Query(ge=-(10**12), le=10**12, description="byte to begin at; below 0: from the end")
    ] = -TAIL,
) -> Any:
    """Return what a run has printed."""
    shelved = house.library.run(run)
    return read_log(house.store.log(shelved.result.spec), start)


def read_log(file: Any, start: int, most: int = TAIL) -> dict[str, Any]:
    """Return a piece of a log; an empty one where there is none."""
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
    """Return the means over a run's tests after its last step, by metric."""
    last = max((r.step for r in result.rows), default=0)
    found: dict[str, list[float]] = {}
    for row in result.rows:
        if row.step == last:
            found.setdefault(row.metric, []).append(row.value)
    return {metric: finite(fmean(values)) for metric, values in found.items()}


def finite(value: float | None) -> float | None:
    """Return a number that JSON knows, or None."""
    return value if value is not None and math.isfinite(value) else None


def row_of(shelved: Shelved, folder: Any) -> dict[str, Any]:
    """Return what a list says of a run."""
    result = shelved.result
    spec = result.spec
    words = {n: getattr(spec, n) for n in ("detector", "dataset", "task", "setting", "protocol", "seed")}
    return {
        **words,
        "id": shelved.id,
        "folder": shelved.folder,
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


def _key(shelved: Shelved, name: str) -> str | float | None:
    result = shelved.result
    if name == "date":
        return str(result.environment.get("date", ""))
    if name == "latency_ms":
        return finite(result.latency_ms)
    if name == "fit_seconds":
        return result.seconds.get("fit")
    if name in SORTS:
        return getattr(result.spec, name)
    return values_of(result).get(name)


def _truth(result: RunResult, test: str) -> tuple[np.ndarray, np.ndarray]:
    found = [s for s in last_scores(result) if s.test == test]
    return np.array([s.defect != "good" for s in found], bool), np.array([s.score for s in found], float)


def _curve(result: RunResult, test: str) -> dict[str, Any]:
    truth, score = _truth(result, test)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    about = {"test": test, "good": negatives, "defective": positives}
    if not positives or not negatives or not np.isfinite(score).all():
        return {**about, "points": []}
    thresholds = np.unique(score)[::-1]
    if len(thresholds) > POINTS:  # both ends are kept
        thresholds = thresholds[np.unique(np.linspace(0, len(thresholds) - 1, POINTS).round().astype(int))]
    bad, good = np.sort(score[truth]), np.sort(score[~truth])
    found = positives - np.searchsorted(bad, thresholds)
    wrong = negatives - np.searchsorted(good, thresholds)
    columns = zip(thresholds, found / positives, wrong / negatives, found / (found + wrong), strict=True)
    names = ("threshold", "recall", "overkill", "precision")
    return {**about, "points": [dict(zip(names, map(float, column), strict=True)) for column in columns]}
