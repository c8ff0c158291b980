"""CPU time per image for features that the feature store has already, and for writing them.

    python benchmarks/feature_reads.py [--backbone resnet18] [--images 200] [--side 256] [--epochs 20]

Random weights and noise do, as only time is measured. A batch has 16 images and three layers are read.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import torch

from iadbe.data.images import Batch
from iadbe.networks import feature_store
from iadbe.networks.backbone import Backbone
from iadbe.networks.feature_store import FeatureStore


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--epochs", type=int, default=20)
    asked = parser.parse_args()
    backbone = Backbone(asked.backbone, (1, 2, 3), "none")
    generator = torch.Generator().manual_seed(0)
    keys = [f"{i:032x}" for i in range(asked.images)]
    images = torch.rand(16, 3, asked.side, asked.side, generator=generator)
    batches = [
        Batch(images[: len(some)], keys=tuple(some)) for some in (keys[i : i + 16] for i in range(0, len(keys), 16))
    ]
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        for name, epochs in (("computing and writing", 1), ("reading", 1), ("reading", asked.epochs)):
            wall, cpu = time.perf_counter(), time.process_time()
            with feature_store.using(store):
                for _ in range(epochs):
                    found = [backbone(batch) for batch in batches]
            wall, cpu = (1e3 * t / epochs / len(keys) for t in (time.perf_counter() - wall, time.process_time() - cpu))
            size = sum(f.nbytes for f in found[0]) / len(batches[0]) / 2**20
            print(f"{name:<22} {cpu:7.3f} CPU-ms, {wall:7.3f} ms per image of {size:.2f} MB")


if __name__ == "__main__":
    main()
