"""Alignment: what turned and shifted parts cost PaDiM, and what registration gives back.

Real test images are turned by up to 30 degrees and shifted by up to a tenth of their shorter side, by known amounts;
training images stay as they are. Printed are the errors of the transforms that were found, PaDiM's image AUROC on the
images as they are, moved, and moved but aligned, and the time of a registration.

Run: python benchmarks/alignment.py DATA [--categories transistor,bottle] [--train 0] [--test 0] [--degrees 30]
DATA is a folder in the layout of MVTec AD; --train and --test take that many images, evenly spaced (0: all of them).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from iadbe.curves.curve import Curve
from iadbe.data.aligned import AlignedDataset, align
from iadbe.data.alignment import Pose, warped
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset, evenly_spaced
from iadbe.datasets.mvtec_ad import MVTecAD
from iadbe.detectors.padim import PaDiM
from iadbe.metrics.auroc import AUROC
from iadbe.networks import feature_store
from iadbe.protocol import Limits
from iadbe.running.prediction import predict
from iadbe.types import Sample, TrainingImage

LIMITS = Limits(rotation=33, shift=0.15)


class Moved(Dataset):
    """A dataset whose test images show the part turned and shifted. The border is repeated."""

    def __init__(self, dataset: Dataset, degrees: float, shift: float) -> None:
        self.dataset, self.root, self.degrees, self.shift = dataset, dataset.root, degrees, shift

    @property
    def categories(self) -> tuple[str, ...]:
        return self.dataset.categories

    def samples(self) -> tuple[Sample, ...]:
        return self.dataset.samples()

    def movement(self, sample: Sample, size: Sequence[int]) -> np.ndarray:
        """Return the matrix (2, 3) from pixels (x, y) of the moved image to those of the image."""
        draws = np.random.default_rng([*sample.id.encode()]).uniform(-1, 1, 3)
        angle = np.radians(self.degrees * draws[0])
        linear = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2])
        return np.c_[linear, centre - linear @ (centre + self.shift * min(size[:2]) * draws[1:])]

    def image(self, sample: Sample) -> np.ndarray:
        pixels = self.dataset.image(sample)
        if sample.split != "test":
            return pixels
        return warped(pixels, Pose(self.movement(sample, pixels.shape), 1.0, True), pixels.shape[:2])


class Found(NamedTuple):
    """What was found of one category."""

    as_it_is: float  # image AUROC of PaDiM on the images as they are
    moved: float
    aligned: float
    degrees: np.ndarray  # (N,) by how much the rotation of each test image is missed
    pixels: np.ndarray  # (N,) by how much its centre is missed
    lost: int  # test images in which the part was not found
    seconds: float  # of CPU time for a registration


def measure(root: Path, category: str, train: int, test: int, degrees: float, shift: float) -> Found:
    """Return the figures of a category; ``train`` and ``test`` images of it, 0: all."""
    plain = MVTecAD(str(root))
    own = [sample for sample in plain.samples() if sample.category == category]
    learnt = [sample for sample in own if sample.split == "train"]
    tested = [sample for sample in own if sample.split == "test"]
    learnt, tested = (some if not n else evenly_spaced(some, n) for some, n in ((learnt, train), (tested, test)))
    moved = Moved(plain, degrees, shift)
    straight, registered = align(plain, learnt, LIMITS), align(moved, learnt, LIMITS)
    start = time.process_time()
    poses = [registered.pose(sample) for sample in tested]
    seconds = (time.process_time() - start) / len(tested)
    missed = [_missed(straight, moved, s, pose) for s, pose in zip(tested, poses, strict=True)]
    angles, pixels = np.array(missed).T
    values = [_auroc(d, learnt, tested) for d in (plain, moved, registered)]
    return Found(*values, angles, pixels, sum(not pose.found for pose in poses), seconds)


def _missed(straight: AlignedDataset, moved: Moved, sample: Sample, pose: Pose) -> tuple[float, float]:
    """Return degrees and pixels at the centre between the known movement and the one that was found."""
    before, size = straight.pose(sample), straight.image_size(sample)
    matrix = moved.movement(sample, moved.dataset.image_size(sample))
    together = Pose(np.vstack([matrix, [0, 0, 1]])[:2] @ np.vstack([pose.matrix, [0, 0, 1]]), 1.0, True)
    centre = np.array([(size[1] - 1) / 2, (size[0] - 1) / 2, 1])
    return (
        abs(together.rotation - before.rotation),
        float(np.abs(together.matrix @ centre - before.matrix @ centre).max()),
    )


def _auroc(dataset: Dataset, learnt: Sequence[Sample], tested: Sequence[Sample]) -> float:
    view = View(256)
    torch.manual_seed(0)
    detector = PaDiM().eval()
    detector.view = view
    with feature_store.using(None):
        detector.fit(Images(dataset, [TrainingImage(s) for s in learnt], view), np.random.default_rng(0))
        found = predict(detector.eval(), Images(dataset, [TrainingImage(s) for s in tested], view))
    return AUROC().value(Curve(np.array([s.is_anomaly for s in tested]), found.score))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--categories", default="transistor,bottle")
    parser.add_argument("--train", type=int, default=0)
    parser.add_argument("--test", type=int, default=0)
    parser.add_argument("--degrees", type=float, default=30.0)
    parser.add_argument("--shift", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    for category in given.categories.split(","):
        one = measure(given.data, category, given.train, given.test, given.degrees, given.shift)
        print(
            f"{category}: image AUROC {one.as_it_is:.3f} as it is, {one.moved:.3f} moved, {one.aligned:.3f} moved and "
            f"aligned; missed by {np.median(one.degrees):.2f} degrees (95 %: {np.quantile(one.degrees, 0.95):.2f}) and "
            f"{np.median(one.pixels):.2f} px ({np.quantile(one.pixels, 0.95):.2f}); {one.lost} of {len(one.degrees)} "
            f"not found; {1000 * one.seconds:.0f} CPU-ms a registration"
        )


if __name__ == "__main__":
    main()
