"""The original server's ten paths, in its shapes, filled from the store: its front end still works.

That server held numbers compiled in by hand. Here a benchmark's row is a detector in the vanilla setting; of several
protocols the one with the most runs counts. What was not measured is null: the original said 0, which is a result.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

from fastapi import APIRouter

from iadbe import registry
from iadbe.results.builder import sorted_entries
from iadbe.results.comparison import Comparison, Entry
from iadbe.results.index import RunQuery
from iadbe.web.house import Here, House

router = APIRouter(prefix="/api", tags=["the original server"])
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
OWN = ("folder", "frames", "yolo", "toy")  # readers of data that nobody has published


@router.get("/pie-data")
def pie_data(house: Here) -> Rows:
    """Return the images and categories of each dataset that runs are about: published counts, else those tested."""
    found = []
    for name, comparisons in _datasets(house).items():
        published, count = _published(name)
        tested = {s.result.spec.task for s in house.library.select(RunQuery((name,)))}
        categories = count or len({c for one in comparisons for c in one.categories(IMAGE)} or tested)
        samples = published or _tested(house, name)
        found.append({"sampleNumber": samples, "datasetName": name, "category": categories})
    return found


@router.get("/bar-data")
def bar_data(house: Here) -> Rows:
    """Return the size of each detector's model, mean over its runs."""
    sizes: dict[str, list[int]] = {}
    for shelved in house.library.now().runs.values():
        if size := shelved.result.memory.get("model"):
            sizes.setdefault(shelved.result.spec.detector, []).append(size)
    return [{"modelName": name, "fileSize": _megabytes(sum(v) / len(v))} for name, v in sorted(sizes.items())]


@router.get("/line-data")
def line_data(house: Here) -> dict[str, Any]:
    """Return the seconds that each detector's fit takes on each dataset: all categories, mean over seeds."""
    found = {name: _fits(house, name) for name in _datasets(house)}
    labels = sorted({model for fits in found.values() for model in fits})
    lines = [{"label": name, "data": [fits.get(model) for model in labels]} for name, fits in found.items()]
    return {"labels": labels, "datasets": lines}


@router.get("/radar-data")
def radar_data(house: Here) -> Rows:
    """Return (seconds of a fit, megabytes, F1) of the two best detectors where the most stand side by side."""
    comparisons = [c for found in _datasets(house).values() for c in found if c.categories(F1)]
    if not comparisons:
        return []
    most = max(comparisons, key=lambda c: len(c.entries))
    return [{"label": e.name, "data": [_fit(e), _size(e), _mean(most, e, F1)]} for e in sorted_entries(most, F1)[:2]]


@router.get("/advance-pie-dataset")
def advance_pie_dataset(house: Here) -> Rows:
    """Return how many published datasets, and how many of one's own, runs are about."""
    names = list(_datasets(house))
    own = sum(n in OWN for n in names)
    return [{"name": "Standard Datasets", "value": len(names) - own}, {"name": "Custom Datasets", "value": own}]


@router.get("/advance-pie-model")
def advance_pie_model(house: Here) -> Rows:
    """Return how many detectors of each kind there are runs of."""
    kinds: dict[str, int] = {}
    for name in sorted({s.result.spec.detector for s in house.library.now().runs.values()}):
        shelf = name in registry.names("detectors")
        kind = str(registry.card("detectors", name).get("kind", "")) if shelf else ""
        kinds[kind or "other"] = kinds.get(kind or "other", 0) + 1
    return [{"name": kind.capitalize(), "value": count} for kind, count in sorted(kinds.items())]


@router.get("/btech-benchmark")
def btech_benchmark(house: Here) -> Rows:
    """Return image AUROC on BTAD by category."""
    return _benchmark(house, "btad", BTECH)


@router.get("/mvtec3d-benchmark")
def mvtec3d_benchmark(house: Here) -> Rows:
    """Return image AUROC on MVTec 3D-AD by category."""
    return _benchmark(house, "mvtec_3d", MVTEC3D)


@router.get("/mvtec-benchmark")
def mvtec_benchmark(house: Here) -> Rows:
    """Return image AUROC on MVTec AD by category."""
    return _benchmark(house, "mvtec_ad", MVTEC)


@router.get("/visa-benchmark")
def visa_benchmark(house: Here) -> Rows:
    """Return image AUROC on VisA by category."""
    return _benchmark(house, "visa", VISA)


def _datasets(house: House) -> dict[str, tuple[Comparison, ...]]:
    """Return by dataset what is compared in the vanilla setting."""
    now = house.library.now()
    found = sorted({s.result.spec.dataset for s in now.runs.values() if s.result.spec.setting == "vanilla"})
    return {name: house.library.comparisons(RunQuery((name,), setting=("vanilla",))) for name in found}


def _benchmark(house: House, dataset: str, categories: Sequence[str]) -> Rows:
    comparisons = _datasets(house).get(dataset, ())
    if not comparisons:
        return []
    most = max(comparisons, key=lambda c: sum(len(e.runs) for e in c.entries))
    rows = []
    for entry in sorted_entries(most, IMAGE):
        values = {_camel(c): _known(entry.value(IMAGE, c)) for c in categories}
        if any(v is not None for v in values.values()):
            whole = all(v is not None for v in values.values())
            rows.append({"model": entry.name, **values, "average": _rounded(values.values()) if whole else None})
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


def _fits(house: House, dataset: str) -> dict[str, float]:
    """Return by detector the seconds of all fits, mean over seeds, rounded."""
    by_seed: dict[str, dict[int, float]] = {}
    for shelved in house.library.select(RunQuery((dataset,), setting=("vanilla",))):
        spec, seconds = shelved.result.spec, shelved.result.seconds.get("fit")
        if seconds is not None and not shelved.result.error:
            seeds = by_seed.setdefault(spec.detector, {})
            seeds[spec.seed] = seeds.get(spec.seed, 0.0) + seconds
    return {name: round(sum(seeds.values()) / len(seeds), 3) for name, seeds in by_seed.items()}


def _published(dataset: str) -> tuple[int, int]:
    """Return (images, categories) as published; zeros where nothing is known."""
    if dataset not in registry.names("datasets"):
        return 0, 0
    card = registry.card("datasets", dataset)
    counts = card.get("counts") or {}
    return sum(card.get("total") or ()) or sum(sum(c) for c in counts.values()), len(counts)


def _tested(house: House, dataset: str) -> int:
    """Return how many images one run of each task was tested on."""
    tasks = {s.result.spec.task: s for s in house.library.select(RunQuery((dataset,))) if not s.result.error}
    return sum(len({score.sample for score in house.library.loaded(s.folder).scores}) for s in tasks.values())
