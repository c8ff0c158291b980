"""Pixel metrics at native size: time and the peak of memory, of large images with small defects.

Every image has a defect of the given share of its area, but for one in five, which is good. Maps are random, in a view
of 512 x 512. Memory is the peak of the whole process, with its libraries (about 350 MB).

Run: python benchmarks/native.py [--images 100] [--size 2048] [--share 0.005]
"""

from __future__ import annotations

import argparse
import math
import time

import numpy as np

from iadbe import system
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset
from iadbe.evaluation.measure import DetectorOutput, measure
from iadbe.metric import DEFAULT
from iadbe.types import Sample, TrainingImage

VIEW = 512
METRICS = tuple(name for name in (*DEFAULT, "pixel_aupimo") if name.startswith("pixel_"))


class Boards(Dataset):
    """Images that nobody looks at, with a square defect each."""

    categories = ("board",)

    def __init__(self, count: int, size: int, share: float) -> None:
        self.count, self.size, self.side = count, size, max(1, round(size * math.sqrt(share)))

    def samples(self) -> tuple[Sample, ...]:
        kinds = ("good" if i % 5 == 0 else "square" for i in range(self.count))
        return tuple(Sample(str(i), "board", "test", kind, "image", "mask") for i, kind in enumerate(kinds))

    def image(self, sample: Sample) -> np.ndarray:
        return np.zeros((self.size, self.size, 3), np.uint8)

    def mask(self, sample: Sample) -> np.ndarray:
        mask = np.zeros((self.size, self.size), bool)
        top, left = np.random.default_rng(int(sample.id)).integers(self.size - self.side, size=2)
        mask[top : top + self.side, left : left + self.side] = True
        return mask


def run(count: int, size: int, share: float) -> tuple[dict[str, float], float]:
    """Return the metrics and the seconds that they took."""
    boards = Boards(count, size, share)
    images = Images(boards, [TrainingImage(s) for s in boards.samples()], View(VIEW))
    maps = np.random.default_rng(0).random((count, VIEW, VIEW), dtype=np.float32)
    start = time.perf_counter()
    rows, _ = measure(DetectorOutput(maps.max((1, 2)), maps), images, METRICS, native=True)
    return rows, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--share", type=float, default=0.005, help="of an image's area that its defect covers")
    given = parser.parse_args()
    rows, seconds = run(given.images, given.size, given.share)
    for name, value in rows.items():
        print(f"{name:16} {value:.6f}")
    what = f"{given.images} images of {given.size} x {given.size}, {given.share:.2%} of each defect"
    print(f"{what}: {seconds:.0f} s, {system.peak_memory() / 2**20:.0f} MiB at the peak")


if __name__ == "__main__":
    main()
