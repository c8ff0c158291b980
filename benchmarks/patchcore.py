"""Fit and score PatchCore at a large size; print CPU seconds of its parts and the peak of memory.

Run: python benchmarks/patchcore.py [--size 512] [--backbone resnet18] [--train 100] [--coreset 0.1]

The images are noise, in which every patch is another and the coreset's search can spare little; the weights are
random. No feature store is used, so the images go through the backbone twice in fit.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time

import numpy as np
import torch
from noise import Noise

from iadbe import progress
from iadbe.data.images import Images, View
from iadbe.detectors.patchcore import PatchCore
from iadbe.progress import Report
from iadbe.types import TrainingImage


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=512, help="height and width, a multiple of 16")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--train", type=int, default=100)
    parser.add_argument("--test", type=int, default=10)
    parser.add_argument("--coreset", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    spent: dict[str, float] = {}
    last = time.process_time()

    def listen(report: Report) -> None:
        nonlocal last
        now = time.process_time()
        spent[report.phase] = spent.get(report.phase, 0.0) + now - last
        last = now

    with tempfile.TemporaryDirectory() as folder:
        noise = Noise(folder, asked.train + asked.test, asked.size)
        examples = [TrainingImage(s) for s in noise.samples()]
        train, test = (Images(noise, e, View(asked.size)) for e in (examples[: asked.train], examples[asked.train :]))
        detector = PatchCore(asked.backbone, weights="none", coreset=asked.coreset)
        detector.view = View(asked.size)
        bare, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
        last = began
        with progress.listening(listen):
            detector.fit(train, np.random.default_rng(0))
        fitted = time.process_time()
        with torch.inference_mode():
            for batch in test.batches(1):
                detector.predict(batch)
        done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{asked.backbone} at {asked.size}, {asked.train} images, bank of {tuple(detector.bank.shape)}")
    for phase, seconds in spent.items():
        print(f"  {phase:<10} {seconds:8.1f} CPU-s")
    print(f"  fit        {fitted - began:8.1f} CPU-s")
    print(f"  predict    {(done - fitted) / asked.test:8.2f} CPU-s an image")
    print(f"  peak       {peak / 2**20:8.2f} GB, of which {bare / 2**20:.2f} GB are there before fit")


if __name__ == "__main__":
    main()
