"""Fake run results for tests of tables, reports and pages."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from iadbe.files import image_io
from iadbe.running.store import folder_name
from iadbe.types import Row, RunResult, RunSpec, Score

OBJECTS = "bottle cable capsule hazelnut metal_nut pill screw toothbrush transistor zipper"
FIFTEEN = (*OBJECTS.split(), *["carpet", "grid", "leather", "tile", "wood"])
BOTH = ("image_auroc", "pixel_auroc")
MACHINE = {
    "iadbe": "0.1.0",
    "python": "3.11.7",
    "system": "Linux x86_64",
    "processor": "AMD EPYC",
    "cores": 2,
    "threads": 2,
    "device": "cpu",
    "packages": {"torch": "2.8.0", "numpy": "2.0.0"},
    "date": "2026-11-21T04:00:00+00:00",
    "command": "iadbe benchmark grid.yaml",
}


def spec(detector="patchcore", task="bottle", **more):
    """Return a spec of the vanilla setting on MVTec AD."""
    given = {
        "dataset": "mvtec_ad",
        "setting": "vanilla",
        "data": "0123456789abcdef",
        "metrics": ("image_auroc",),
        "versions": {"detector": 1, "dataset": 1, "setting": 1, "image_auroc": 1},
    }
    return RunSpec(detector=detector, task=task, **{**given, **more})


def result(detector="patchcore", task="bottle", values=None, *, scores=(), date="", **more):
    """Return a result with these rows in one step: ``values`` by metric; an ``error`` makes it a failed one."""
    costs = {"latency_ms": 10.0, "seconds": {"fit": 2.0, "total": 5.0}, "memory": {"peak": 500 * 2**20}}
    fields = ("error", "latency_ms", "latency_range_ms", "seconds", "memory", "environment", "notes", "rows")
    for name in (*fields, "steps", "images", "data_name", "cpu_seconds"):
        if name in more:
            costs[name] = more.pop(name)
    values = {"image_auroc": 0.9} if values is None else values
    rows = tuple(Row(0, task, metric, value) for metric, value in values.items())
    costs = {"rows": () if costs.get("error") else rows, "environment": MACHINE, **costs}
    if date:
        costs["environment"] = {**costs["environment"], "date": date}
    return RunResult(spec(detector, task, **more), scores=tuple(scores), **costs)


def runs(detector, values, metric="image_auroc", **more):
    """Make a result per category of ``values``."""
    return [result(detector, task, {metric: value}, **more) for task, value in values.items()]


def cell(table, row, column):
    """Return the cell of a table by the text of its row and the name of its column."""
    names = [c.name for c in table.columns]
    cells = next(r for r in table.rows if r[0].text == row)
    return cells[names.index(column)]


def texts(table):
    """Return a table's footnotes as one text."""
    return " ".join(text for _, text in table.footnotes)


def scores(category="bottle", *, shift=2.0, good=20, bad=30, seed=0, kinds=("crack", "stain")):
    """Return scores of ``good`` clean images around 0 and ``bad`` defective ones around ``shift``."""
    rng = np.random.default_rng(seed)
    made = [Score(0, category, f"{category}/good/{i}", category, "good", float(rng.normal())) for i in range(good)]
    for i in range(bad):
        kind = kinds[i % len(kinds)]
        made.append(Score(0, category, f"{category}/{kind}/{i}", category, kind, float(rng.normal(shift))))
    return tuple(made)


NAN = math.nan

WRITER = """
import sys, time
from pathlib import Path
from fake_results import result
from iadbe.results.index import RunIndex
from iadbe.running.store import Store
root, me, count, url = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), sys.argv[4]
store = Store(root)
with RunIndex(store, url) as index:
    print("ready", flush=True)
    for seed in range(count):
        made = result(me, "bottle", {f"image_{n}": 0.5 for n in range(10)}, seed=seed)
        store.save(made)
        index.add(made)
"""


def plain(results):
    return [(folder_name(r.spec), repr(r.rows), r.error, r.environment, r.seconds) for r in results]


def start_writer(root, name, count, url=""):
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "src")])
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-c", WRITER, str(root), name, str(count), url]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(writers):
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors


def save(store, detector, *, maps=True, good=3, bad=9, masks=True, **more):
    """Save a run with some of its test images, as runs keep them."""
    made = scores(shift=6.0, good=10, bad=10)
    run = result(detector, scores=made, **more)
    staging = store.staging(run.spec)
    chosen = [s for s in made if s.defect == "good"][:good] + [s for s in made if s.defect != "good"][:bad]
    entries = []
    for n, s in enumerate(chosen):
        base = staging / "images"
        image_io.write(base / f"{n:02d}_input.jpg", np.full((64, 64, 3), 10 * n, np.uint8))
        entry = {"n": n, "sample": s.sample, "category": s.category, "defect": s.defect, "score": s.score}
        if maps:
            image_io.write(base / f"{n:02d}_map.png", np.full((64, 64), 255, np.uint8))
        if masks and s.defect != "good":
            mask = np.zeros((64, 64), np.uint8)
            mask[20:40, 20:40] = 255
            image_io.write(base / f"{n:02d}_mask.png", mask)
        entries.append({**entry, "map": maps, "mask": masks and s.defect != "good"})
    (staging / "images" / "images.json").write_text(json.dumps(entries))
    store.save(run, staging)
    return run
