"""One image through every registered detector: time, the peak of memory, the size of the model.

Each is fitted on drawn images (the trained ones for a moment: what they cost afterwards does not depend on that) and
saved. A fresh process loads it and scores single images; the medians of wall and CPU time are shown, and by how much
its memory at its peak was above that of a process which has only imported the same libraries. All on one thread.

Run: python benchmarks/predict.py [--detectors padim,patchcore] [--images 100] [--size 256]
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.errors import Missing
from iadbe.parameters import complete
from iadbe.registry import card, load, names
from iadbe.running import model_folder
from iadbe.types import TrainingImage

SHORT = {"epochs": 1, "steps": 4}
REPEATS = 15


def images(split: str, count: int, size: int) -> Images:
    """Return drawn images of one category."""
    toy = Toy(count=max(count, 40))
    found = [s for s in toy.samples() if s.category == "metal" and s.split == split][:count]
    return Images(toy, [TrainingImage(s) for s in found], View(size))


def fit(name: str, folder: Path, count: int, size: int) -> None:
    """Fit a detector and save it."""
    own = card("detectors", name)
    short = {k: v for k, v in {**SHORT, "weights": "auto"}.items() if k in {p.name for p in own.parameters}}
    if name == "winclip":  # its weights are not on every machine, and time does not depend on them
        short["weights"] = "none"
    detector = load("detectors", name)(**complete(own, short))
    detector.view = View(size)
    detector.fit(images("train", count, size), np.random.default_rng(0))
    model_folder.save(folder, detector.eval(), name, short)


def predict(folder: Path, size: int) -> None:
    """Load a detector, score single images, print what that has cost."""
    bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    detector = model_folder.load(folder).detector
    batches = list(images("test", REPEATS + 2, size).batches(1))
    wall, cpu = [], []
    with torch.inference_mode():
        for batch in batches:
            began = time.perf_counter(), time.process_time()
            detector.predict(batch)
            wall.append(time.perf_counter() - began[0])
            cpu.append(time.process_time() - began[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - bare
    size_ = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
    costs = {
        "wall": statistics.median(wall[2:]),
        "cpu": statistics.median(cpu[2:]),
        "peak": peak * 1024,
        "model": size_,
    }
    print(json.dumps(costs))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--detectors", default="")
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--fit", default="")
    parser.add_argument("--predict", default="")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.fit:
        return fit(options.detectors, Path(options.fit), options.images, options.size)
    if options.predict:
        return predict(Path(options.predict), options.size)
    print(f"| detector | ms an image | CPU ms | memory above the libraries, MB | model, MB |\n|---|{'---:|' * 4}")
    for name in options.detectors.split(",") if options.detectors else names("detectors"):
        try:
            load("detectors", name)
        except Missing as error:
            print(f"| {name} | {error} | | | |")
            continue
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, "--detectors", name, "--size", str(options.size)]
            subprocess.run([*command, "--images", str(options.images), "--fit", folder], check=True)
            printed = subprocess.run([*command, "--predict", folder], check=True, stdout=subprocess.PIPE).stdout
        cost = json.loads(printed)
        times = f"{cost['wall'] * 1e3:.0f} | {cost['cpu'] * 1e3:.0f}"
        print(f"| {name} | {times} | {cost['peak'] / 1e6:.0f} | {cost['model'] / 1e6:.1f} |", flush=True)
    return None


if __name__ == "__main__":
    main()
