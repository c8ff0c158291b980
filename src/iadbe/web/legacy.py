"""The ten paths of the original IADBE server, in their original form but filled from the store. Its front end works.

The original server returned constants. Here a row of a benchmark is a detector in the vanilla setting. Of several
protocols, the one with the most runs is used. A value that was not measured is null; the original returned 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter

from iadbe import registry
from iadbe.results.builder import sorted_entries
from iadbe.results.comparison import Comparison
from iadbe.results.entry import Entry
from iadbe.results.index import RunQuery
from iadbe.web.state import Server, ServerState

router = APIRouter(prefix="/api", tags=["legacy"])
Rows = list[dict[str, Any]]
IMAGE, F1 = "image_auroc", "image_f1max"
BTECH = ("01", "02", "03")
MVTEC3D = ("bagel", "cable_gland", "carrot", "cookie", "dowel", "foam", "peach", "potato", "rope", "tire")
MVTEC = (
    *("screw", "pill", "capsule", "carpet", "grid", "tile", "wood", "zipper", "cable", "toothbrush", "transistor"),
    *("metal_nut", "bottle", "hazelnut", "leather"),
)
VISA = (
    *("candle", "capsules", "cashew", "chewinggum", "fryum", "macaroni1", "macaroni2", "pcb1", "pcb2", "pcb3", "pcb4"),
    "pipe_fryum",
)
CUSTOM = ("folder", "frames", "yolo", "toy")  # readers of unpublished data


@router.get("/pie-data")
def pie_data(server: Server) -> Rows:
    """Return images and categories of each dataset with runs: published counts, else those tested."""
    return server.run_cache.now().once("images by dataset", lambda: _shares(server))


def _shares(server: ServerState) -> Rows:
    found = []
    for name, comparisons in _datasets(server).items():
        published, count = _published(name)
        tested = {s.result.spec.task for s in server.run_cache.select(RunQuery((name,)))}
        categories = count or len({c for one in comparisons for c in one.categories(IMAGE)} or tested)
        samples = published or _tested(server, name)
        found.append({"sampleNumber": samples, "datasetName": name, "category": categories})
    return found


@router.get("/bar-data")
def bar_data(server: Server) -> Rows:
    """Return the model size of each detector, mean over its runs."""
    return server.run_cache.now().once("model sizes", lambda: _sizes(server))


def _sizes(server: ServerState) -> Rows:
    sizes: dict[str, list[int]] = {}
    for cached in server.run_cache.now().runs.values():
        if size := cached.result.memory.get("model"):
            sizes.setdefault(cached.result.spec.detector, []).append(size)
    return [{"modelName": name, "fileSize": _megabytes(sum(v) / len(v))} for name, v in sorted(sizes.items())]


@router.get("/line-data")
def line_data(server: Server) -> dict[str, Any]:
    """Return the fit time of each detector on each dataset in seconds: sum over categories, mean over seeds."""
    found = server.run_cache.now().once("fit times", lambda: {name: _fits(server, name) for name in _datasets(server)})
    labels = sorted({model for fits in found.values() for model in fits})
    lines = [{"label": name, "data": [fits.get(model) for model in labels]} for name, fits in found.items()]
    return {"labels": labels, "datasets": lines}


@router.get("/radar-data")
def radar_data(server: Server) -> Rows:
    """Return (fit time in s, size in MB, F1) of the two best detectors of the comparison with the most detectors."""
    comparisons = [c for found in _datasets(server).values() for c in found if c.categories(F1)]
    if not comparisons:
        return []
    most = max(comparisons, key=lambda c: len(c.entries))
    best = [e for e in sorted_entries(most, F1) if not e.unfinished][:2]
    return [{"label": e.name, "data": [_fit(e), _size(e), _mean(most, e, F1)]} for e in best]


@router.get("/advance-pie-dataset")
def advance_pie_dataset(server: Server) -> Rows:
    """Return how many published and how many custom datasets have runs."""
    names = list(_datasets(server))
    custom = sum(n in CUSTOM for n in names)
    return [{"name": "Standard Datasets", "value": len(names) - custom}, {"name": "Custom Datasets", "value": custom}]


@router.get("/advance-pie-model")
def advance_pie_model(server: Server) -> Rows:
    """Return how many detectors of each kind have runs."""
    kinds: dict[str, int] = {}
    for name in sorted(server.run_cache.now().counts("detector")):
        is_registered = name in registry.names("detectors")
        kind = str(registry.card("detectors", name).get("kind", "")) if is_registered else ""
        kinds[kind or "other"] = kinds.get(kind or "other", 0) + 1
    return [{"name": kind.capitalize(), "value": count} for kind, count in sorted(kinds.items())]


@router.get("/btech-benchmark")
def btech_benchmark(server: Server) -> Rows:
    """Return image AUROC on BTAD by category."""
    return _benchmark(server, "btad", BTECH)


@router.get("/mvtec3d-benchmark")
def mvtec3d_benchmark(server: Server) -> Rows:
    """Return image AUROC on MVTec 3D-AD by category."""
    return _benchmark(server, "mvtec_3d", MVTEC3D)


@router.get("/mvtec-benchmark")
def mvtec_benchmark(server: Server) -> Rows:
    """Return image AUROC on MVTec AD by category."""
    return _benchmark(server, "mvtec_ad", MVTEC)


@router.get("/visa-benchmark")
def visa_benchmark(server: Server) -> Rows:
    """Return image AUROC on VisA by category."""
    return _benchmark(server, "visa", VISA)


def _datasets(server: ServerState) -> dict[str, tuple[Comparison, ...]]:
    """Return the comparisons in the vanilla setting by dataset."""
    now = server.run_cache.now()
    runs = now.runs.values()
    found = now.once(
        "vanilla", lambda: sorted({s.result.spec.dataset for s in runs if s.result.spec.setting == "vanilla"})
    )
    return {name: server.run_cache.comparisons(RunQuery((name,), setting=("vanilla",))) for name in found}


def _benchmark(server: ServerState, dataset: str, categories: Sequence[str]) -> Rows:
    comparisons = _datasets(server).get(dataset, ())
    if not comparisons:
        return []
    most = max(comparisons, key=lambda c: sum(len(e.runs) for e in c.entries))
    rows = []
    for entry in sorted_entries(most, IMAGE):
        values = {_camel(c): _known(entry.value(IMAGE, c)) for c in categories}
        if any(v is not None for v in values.values()):
            complete = all(v is not None for v in values.values())
            rows.append({"model": entry.name, **values, "average": _rounded(values.values()) if complete else None})
    return rows


def _camel(name: str) -> str:
    return re.sub(r"_(\w)", lambda found: found[1].upper(), name)


def _rounded(values: Iterable[float | None]) -> float:
    numbers = [v for v in values if v is not None]
    return round(sum(numbers) / len(numbers), 6)


def _known(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _mean(comparison: Comparison, entry: Entry, metric: str) -> float | None:
    return _known(comparison.mean(entry, metric).value)


def _fit(entry: Entry) -> float | None:
    return _known(entry.cost("fit_seconds"))


def _size(entry: Entry) -> float | None:
    sizes = [r.memory["model"] for r in entry.runs if r.memory.get("model")]
    return round(sum(sizes) / len(sizes) / 1e6, 3) if sizes else None


def _megabytes(size: float) -> str:
    return f"{size / 1e6:.0f}MB" if size >= 10e6 else f"{size / 1e6:.2g}MB"


def _fits(server: ServerState, dataset: str) -> dict[str, float]:
    """Return the fit time by detector: sum over categories, mean over seeds, rounded."""
    by_seed: dict[str, dict[int, float]] = {}
    for cached in server.run_cache.select(RunQuery((dataset,), setting=("vanilla",))):
        spec, seconds = cached.result.spec, cached.result.seconds.get("fit")
        if seconds is not None and not cached.result.error:
            seeds = by_seed.setdefault(spec.detector, {})
            seeds[spec.seed] = seeds.get(spec.seed, 0.0) + seconds
    return {name: round(sum(seeds.values()) / len(seeds), 3) for name, seeds in by_seed.items()}


def _published(dataset: str) -> tuple[int, int]:
    """Return the published (images, categories); zeros where they are unknown."""
    if dataset not in registry.names("datasets"):
        return 0, 0
    card = registry.card("datasets", dataset)
    counts = card.get("counts") or {}
    return sum(card.get("total") or ()) or sum(sum(c) for c in counts.values()), len(counts)


def _tested(server: ServerState, dataset: str) -> int:
    """Return how many images one run of each task was tested on."""
    tasks = {s.result.spec.task: s for s in server.run_cache.select(RunQuery((dataset,))) if not s.result.error}
    return sum(len({score.sample for score in server.run_cache.loaded(s.folder).scores}) for s in tasks.values())
