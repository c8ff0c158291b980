"""A grid of eight detectors on one category with the feature store on and off, and a flow's epochs, in one run.

    python benchmarks/features.py [--backbone resnet18] [--weights none] [--train 200] [--test 100] [--epochs 10]
                                  [--part grid|flow]

All detectors use the same frozen backbone; random weights do, as only time and counts are measured (but
banks are searched quicker in the features of a trained one). The images are drawn, and drawn beforehand. The flow is
trained a third time on what the second time has stored.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from iadbe.datasets.toy import Toy
from iadbe.running import plan
from iadbe.running.run import run
from iadbe.types import Options, RunResult, RunSpec

GRID = {
    "padim": {"layers": [1, 2, 3]},
    "orthoad": {"layers": [1, 2, 3]},
    "patchcore": {"layers": [2, 3]},
    "softpatch": {"layers": [2, 3]},
    "subspacead": {"layers": [3], "copies": 0},
    "dfm": {"layer": 3},
    "dfkde": {"layer": 3},
    "fre": {"layer": 3, "epochs": 5},
}


def written(folder: Path, train: int, test: int) -> dict[str, str]:
    """Write drawn images as files: some to train on, and as many to test, with their masks; return where."""
    drawn = [s for s in Toy().samples() if s.category == "metal" and s.split == "test"]
    more = Toy(count=train + max(0, test - len(drawn)))
    good = [s for s in more.samples() if s.category == "metal" and s.split == "train"]
    for number, sample in enumerate([*good, *drawn]):
        kind = "train" if number < train else "bad" if sample.is_anomaly else "good"
        for place, pixels in ((kind, more.image(sample)), (f"mask_{kind}", more.mask(sample))):
            if pixels is not None and place != "mask_good":
                (folder / place).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / place / f"{number:04d}.png")
    return {"root": str(folder), "normal_dir": "train", "normal_test_dir": "good", "abnormal_dir": "bad",
            "mask_dir": "mask_bad"}  # fmt: skip


def specs(detectors: dict[str, dict], seen: dict[str, str], data: dict[str, str]) -> tuple[RunSpec, ...]:
    """Return one run for each detector, with the backbone and weights ``seen``."""
    entries = [{"name": name, **seen, **more} for name, more in detectors.items()]
    return plan.expand({"detectors": entries, "data": [{"name": "folder", **data}]}).runs


def measured(runs: tuple[RunSpec, ...], options: Options) -> dict[str, float]:
    """Carry out the runs here; return wall and CPU seconds and how often an image went through the backbone."""
    wall, cpu, computed = time.perf_counter(), time.process_time(), 0
    for spec in runs:
        result = done(spec, options)
        computed += result.features["computed"]
        seen = f"computed {result.features['computed']}, from the store {result.features['stored']}"
        print(f"  {spec.detector:<12} {result.cpu_seconds['total']:7.1f} CPU-s  {seen}", flush=True)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "computed": computed}


def done(spec: RunSpec, options: Options) -> RunResult:
    """Carry out a run that has to go well."""
    result = run(spec, options)
    if result.error:
        raise SystemExit(f"{spec.detector}: {result.error}")
    return result


def compared(what: str, runs: tuple[RunSpec, ...], folder: Path, again: bool = False) -> None:
    """Print the runs' costs without the store, with it, empty at first, and ``again`` when it is full."""
    options = Options(features=str(folder), images=0)
    print(f"{what}, store off")
    off = measured(runs, replace(options, features="off"))
    for state in ("empty at first", "full")[: 1 + again]:
        print(f"{what}, store on, {state}")
        on = measured(runs, options)
        print(f"  images through the backbone: {off['computed']:.0f} off, {on['computed']:.0f} on")
        for clock in ("cpu", "wall"):
            ratio = f"{on[clock] / off[clock]:.0%}, {off[clock] / on[clock]:.1f} times faster"
            print(f"  {clock} seconds: {off[clock]:.1f} off, {on[clock]:.1f} on: {ratio}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--train", type=int, default=200)
    parser.add_argument("--test", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--part", choices=("grid", "flow"))
    asked = parser.parse_args()
    seen = {"backbone": asked.backbone, "weights": asked.weights}
    print(f"{asked.backbone}, {asked.train} + {asked.test} images, {torch.get_num_threads()} threads")
    flow = {"fastflow": {"layers": [3], "epochs": asked.epochs, "blocks": 4}}
    with tempfile.TemporaryDirectory() as folder:
        data = written(Path(folder) / "data", asked.train, asked.test)
        grid = specs(GRID, seen, data)
        done(grid[-1], Options(features="off", images=0))  # warms up
        if asked.part != "flow":
            compared(f"grid of {len(grid)}", grid, Path(folder) / "grid")
        if asked.part != "grid":
            epochs = specs(flow, seen, data)
            compared(f"{asked.epochs} epochs of a flow", epochs, Path(folder) / "flow", again=True)


if __name__ == "__main__":
    main()
