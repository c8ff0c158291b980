"""A grid of four detectors on one category, with the feature store on and off, in one run.

    python benchmarks/features.py [--backbone resnet18 --pictures 100]

Every detector looks through the same frozen backbone; random weights do, for only time and counts are measured.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from iadbe import plan
from iadbe.run import run
from iadbe.types import Options, RunSpec

LAYERS = {
    "padim": {"layers": [1, 2, 3]},
    "spade": {"layers": [1, 2, 3], "pooled_layer": 3},
    "patchcore": {"layers": [2, 3]},
    "dfm": {"layer": 3},
}  # the most layers first: what one stores, the others find


def specs(backbone: str, pictures: int) -> tuple[RunSpec, ...]:
    """Return one run for each detector."""
    detectors = [{"name": n, "backbone": backbone, "weights": "none", **more} for n, more in LAYERS.items()]
    return plan.expand(
        {"detectors": detectors, "data": [{"name": "toy", "count": pictures, "categories": ["metal"]}]}
    ).runs


def measured(runs: tuple[RunSpec, ...], options: Options) -> dict[str, float]:
    """Carry out the runs here and return wall and CPU seconds and how often a picture went through the backbone."""
    wall, cpu, computed = time.perf_counter(), time.process_time(), 0
    for spec in runs:
        result = run(spec, options)
        if result.error:
            raise SystemExit(f"{spec.detector}: {result.error}")
        computed += result.features["computed"]
        seen = f"computed {result.features['computed']}, from the store {result.features['stored']}"
        print(f"  {spec.detector:<10} {result.cpu_seconds['total']:7.1f} CPU-s  {seen}")
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "computed": computed}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--pictures", type=int, default=100)
    asked = parser.parse_args()
    runs = specs(asked.backbone, asked.pictures)
    with tempfile.TemporaryDirectory() as folder:
        options = Options(features=str(Path(folder) / "features"), pictures=0)
        run(runs[0], replace(options, features="off"))  # draws the pictures, warms up
        print("store off")
        off = measured(runs, replace(options, features="off"))
        print("store on, empty at first")
        on = measured(runs, options)
    print(f"pictures through the backbone: {off['computed']:.0f} off, {on['computed']:.0f} on")
    print(f"CPU seconds: {off['cpu']:.1f} off, {on['cpu']:.1f} on, {on['cpu'] / off['cpu']:.0%}")
    print(f"wall seconds: {off['wall']:.1f} off, {on['wall']:.1f} on, {on['wall'] / off['wall']:.0%}")


if __name__ == "__main__":
    main()
