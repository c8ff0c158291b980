"""Tiles: their cost beside the whole image with the same number of patches, and the peak of memory of a large image.

A board is drawn with random rectangles. PatchCore is fitted to it whole and in tiles that do not overlap, which has the
same number of patches; CPU seconds of fit and prediction, in one run. Then a second detector sees the same tiles from
the feature store, and counts what its backbone computes. With --large, PatchCore is fitted to one image of that size,
in automatic tiles, and another goes through it: the peak of memory of the whole process.

Run: python benchmarks/tiles.py [--images 8] [--size 1024] [--tile 256] [--large 8000x6000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from iadbe import system
from iadbe.data.images import Images, View
from iadbe.data.tiles import settled
from iadbe.dataset import Dataset
from iadbe.detector import Detector
from iadbe.detectors.padim import PaDiM
from iadbe.detectors.patchcore import PatchCore
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore
from iadbe.protocol import AUTO, Tiling
from iadbe.running.prediction import predict
from iadbe.running.tiled_detector import TiledDetector
from iadbe.types import Sample, TrainingImage


class Boards(Dataset):
    """Drawn boards: rectangles of many colours."""

    categories = ("board",)
    root = Path()

    def __init__(self, count: int, height: int, width: int) -> None:
        self.count, self.height, self.width = count, height, width

    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(str(i), "board", "train", "good", str(i)) for i in range(self.count))

    def image(self, sample: Sample) -> np.ndarray:
        rng = np.random.default_rng(int(sample.id))
        board = np.full((self.height, self.width, 3), 60, np.uint8)
        for top, left, height, width, *colour in rng.integers(0, 256, (400, 7)):
            y, x = top * self.height // 256, left * self.width // 256
            board[y : y + height // 8 + 4, x : x + width // 8 + 4] = colour
        return board


def images(count: int, height: int, width: int) -> Images:
    boards = Boards(count, height, width)
    return Images(boards, [TrainingImage(s) for s in boards.samples()], View(height, resize_width=width))


def timed(make: Callable[[], Detector], train: Images, test: Images) -> float:
    """Return the CPU seconds of fit and prediction."""
    detector = make()
    start = time.process_time()
    detector.fit(train, np.random.default_rng(0))
    predict(detector.eval(), test)
    return time.process_time() - start


def compare(count: int, size: int, tile: int) -> None:
    """Print the costs of tiles beside the whole image."""
    train, test, view, tiling = images(count, size, size), images(count, size, size), View(size), Tiling(tile, 0)
    makes: dict[str, Callable[[], Detector]] = {
        "whole": lambda: PatchCore(coreset=0.02),
        "tiles": lambda: TiledDetector(PatchCore(coreset=0.02).eval(), view, tiling),
    }
    with feature_store.using(None):
        timed(makes["tiles"], train.subset([0]), test.subset([0]))  # warms up
        spent = {name: [timed(make, train, test) for _ in range(2)] for name, make in makes.items()}
    whole, tiled = (min(values) for values in spent.values())
    print(
        f"{count} images of {size} x {size}, PatchCore: whole {whole:.1f} CPU-s, in tiles of {tile}: {tiled:.1f} CPU-s"
    )
    print(f"ratio {tiled / whole:.2f}")
    with tempfile.TemporaryDirectory() as folder, feature_store.using(FeatureStore(folder)) as counters:
        for detector in (PatchCore(layers=(2, 3)), PaDiM(layers=(2, 3))):
            before, own = counters.computed, TiledDetector(detector.eval(), view, Tiling(tile, tile // 8))
            timed(lambda own=own: own, train, test)
            print(f"{type(detector).__name__}: {counters.computed - before} tiles through the backbone")


def large(width: int, height: int) -> None:
    """Print time and the peak of memory of a fit to one large image, and of the prediction of another."""
    view = View(height, resize_width=width)
    tiling = settled(Tiling(AUTO, 0), view.shape)
    detector = TiledDetector(PatchCore(coreset=0.001).eval(), view, tiling)
    print(f"{width} x {height}: {len(detector.tiles)} tiles of {tiling}; {_peak()} before the fit")
    both = images(2, height, width)
    with feature_store.using(None):
        start = time.process_time()
        detector.fit(both.subset([0]), np.random.default_rng(0))
        print(f"fit to one image: {time.process_time() - start:.0f} CPU-s, {_peak()} at the peak")
        start = time.process_time()
        found = predict(detector.eval(), both.subset([1]))
    assert found.map is not None
    print(f"one image: {time.process_time() - start:.0f} CPU-s, {_peak()} at the peak, map {found.map.shape[1:]}")


def _peak() -> str:
    return f"{system.peak_memory() / 2**20:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--large", default="", help="WIDTHxHEIGHT of one image")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.large:
        large(*(int(side) for side in given.large.split("x")))
    else:
        compare(given.images, given.size, given.tile)


if __name__ == "__main__":
    main()
