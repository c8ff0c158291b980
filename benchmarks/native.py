"""Pixel metrics at native size: time and the peak of memory, of large images with small defects.

Every image has a defect of the given share of its area, but for one in five, which is good. Maps are random, in a view
of 512 x 512. With --run, the boards are drawn on files instead, and a whole run reads, fits, predicts and measures
them. Memory is the peak of the whole process, with its libraries, whose share is printed too (530 MB where torch is
built for CUDA).

Run: python benchmarks/native.py [--images 100] [--size 2048] [--share 0.005] [--run padim --protocol uniform,native]
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image

from iadbe import system
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset
from iadbe.evaluation.measure import DetectorOutput, measure
from iadbe.metric import DEFAULT
from iadbe.running import plan
from iadbe.running.run import execute
from iadbe.running.store import Store
from iadbe.types import Options, Sample, TrainingImage

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


def draw(root: Path, count: int, size: int, share: float) -> None:
    """Draw boards in the layout of MVTec AD: a tenth of ``count`` to learn from, and ``count`` to test."""
    boards, rng = Boards(count, size, share), np.random.default_rng(0)
    surface = np.kron(rng.integers(60, 100, (size // 16, size // 16, 3)), np.ones((16, 16, 1))).astype(np.uint8)
    learnt = [f"train/good/{i:03d}.png" for i in range(max(1, count // 10))]
    tested = [f"test/{s.defect}/{int(s.id):03d}.png" for s in boards.samples()]
    for name in (*learnt, *tested):
        image = surface + rng.integers(0, 20, surface.shape, np.uint8)
        if "square" in name:
            mask = boards.mask(boards.samples()[int(Path(name).stem)])
            image[mask] = 200
            truth = root / f"ground_truth/square/{Path(name).stem}_mask.png"
            truth.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.astype(np.uint8) * 255).save(truth, compress_level=1)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name, compress_level=1)


def whole_run(detector: str, protocol: str, count: int, size: int, share: float) -> tuple[dict[str, float], float]:
    """Return the metrics of a run in this process on drawn boards, and the seconds that it took."""
    with TemporaryDirectory() as folder:
        draw(Path(folder, "board"), count, size, share)
        data = {"name": "mvtec_ad", "root": folder}
        (spec,) = plan.expand({"detectors": [detector], "protocol": protocol, "data": [data]}).runs
        start = time.perf_counter()
        result = execute(spec, Store(Path(folder, "runs")), Options("cpu", features="off"))
        if result.error:
            raise SystemExit(result.error)
        return {row.metric: row.value for row in result.rows}, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--share", type=float, default=0.005, help="of an image's area that its defect covers")
    parser.add_argument("--run", default="", metavar="DETECTOR", help="carry out a whole run of this detector")
    parser.add_argument("--protocol", default="uniform,native", help="of the whole run")
    given = parser.parse_args()
    imported = system.peak_memory()
    boards = given.images, given.size, given.share
    rows, seconds = whole_run(given.run, given.protocol, *boards) if given.run else run(*boards)
    for name, value in rows.items():
        print(f"{name:16} {value:.6f}")
    what = f"{given.images} images of {given.size} x {given.size}, {given.share:.2%} of each defect"
    peaks = f"{system.peak_memory() / 2**20:.0f} MiB at the peak, {imported / 2**20:.0f} of them for imports"
    print(f"{what}: {seconds:.0f} s, {peaks}")


if __name__ == "__main__":
    main()
