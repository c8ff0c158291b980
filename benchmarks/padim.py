"""Fit and score PaDiM with Wide-ResNet-50-2 and 550 dimensions; print CPU seconds and the peak of memory.

The baseline, in the same process and on the same features, is the usual way at some of the positions: numpy's
covariance, its inverse, the quadratic form of every image. Its time is scaled up to all positions.

Run: python benchmarks/padim.py [--train 100] [--test 60] [--dims 550] [--positions 64]
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from noise import Noise
from torch import Tensor

from iadbe.data.images import Images
from iadbe.detectors.padim import PaDiM
from iadbe.layers.features.patches import concatenated
from iadbe.types import TrainingImage


class Watch:
    """CPU seconds of all threads, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


class SampledFeatures:
    """Features and scores at a few positions. Allocated at once, so that the peak of memory stays unchanged."""

    def __init__(self, train: int, test: int, dims: int, positions: np.ndarray) -> None:
        self.positions = torch.from_numpy(positions)
        self.learnt = torch.zeros(train, dims, len(positions))
        self.shown = torch.zeros(test, dims, len(positions))
        self.scored = torch.zeros(test, len(positions))
        self.done = {"learnt": 0, "shown": 0}

    def keep(self, name: str, layers: Sequence[Tensor]) -> slice:
        """Copy the stacked features of one image after the other."""
        start = self.done[name]
        for image in zip(*(layer.split(1) for layer in layers), strict=True):
            features = concatenated(image).flatten(2)
            torch.index_select(features[0], 1, self.positions, out=getattr(self, name)[self.done[name]])
            self.done[name] += 1
        return slice(start, self.done[name])


def watch_over(detector: PaDiM, watch: Watch, kept: SampledFeatures) -> None:
    """Time the parts of a detector, and keep what is needed to compute its answers in the usual way."""
    gaussians, backbone = detector.gaussians, detector.backbone
    add, factorise, distance, compute = gaussians.add, gaussians.factorise, gaussians.distance, backbone._compute

    def timed_compute(image: Tensor) -> list[Tensor]:
        with watch("backbone"):
            return compute(image)

    def timed_add(layers: Sequence[Tensor]) -> None:
        kept.keep("learnt", layers)
        with watch("sums"):
            add(layers)

    def timed_factorise() -> None:
        with watch("factors"):
            factorise()

    def timed_distance(layers: Sequence[Tensor]) -> Tensor:
        rows = kept.keep("shown", layers)
        with watch("distances"):
            found = distance(layers)
        kept.scored[rows] = found.flatten(1)[:, kept.positions]
        return found

    gaussians.add, gaussians.factorise = timed_add, timed_factorise  # type: ignore[method-assign]
    gaussians.distance, backbone._compute = timed_distance, timed_compute  # type: ignore[method-assign]


def usual(learnt: np.ndarray, shown: np.ndarray, regularisation: float) -> np.ndarray:
    """Return the distances (B, P) of shown (B, C, P) to the Gaussians of learnt (N, C, P), position by position."""
    found = np.empty((len(shown), shown.shape[2]))
    for p in range(shown.shape[2]):
        covariance = np.cov(learnt[..., p], rowvar=False) + regularisation * np.eye(learnt.shape[1])
        inverse = np.linalg.inv(covariance)
        mean = learnt[..., p].mean(0)
        for b, x in enumerate(shown[..., p]):
            found[b, p] = np.sqrt((x - mean) @ inverse @ (x - mean))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=100, help="training images")
    parser.add_argument("--test", type=int, default=60, help="test images")
    parser.add_argument("--size", type=int, default=256, help="height and width, a multiple of 16")
    parser.add_argument("--dims", type=int, default=550)
    parser.add_argument("--backbone", default="wide_resnet50_2")
    parser.add_argument("--positions", type=int, default=64, help="how many positions the baseline computes")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    watch = Watch()
    with tempfile.TemporaryDirectory() as folder:
        detector = PaDiM(options.backbone, weights="none", dims=options.dims)
        noise = Noise(folder, options.train + options.test, options.size)
        examples = [TrainingImage(s) for s in noise.samples()]
        stride = detector.backbone.strides[0]
        count = (-(-options.size // stride)) ** 2
        positions = np.sort(np.random.default_rng(0).choice(count, min(options.positions, count), replace=False))
        dims = min(options.dims or sum(detector.backbone.channels), sum(detector.backbone.channels))
        kept = SampledFeatures(options.train, options.test, dims, positions)
        watch_over(detector, watch, kept)
        made = time.process_time()
        detector.fit(Images(noise, examples[: options.train], detector.view), np.random.default_rng(0))
        fitted = time.process_time()
        for batch in Images(noise, examples[options.train :], detector.view).batches(16):
            detector.predict(batch)
        done = time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    with watch("usual"):
        expected = usual(kept.learnt.numpy(), kept.shown.numpy(), detector.gaussians.regularisation)
    ours = sum(watch.seconds[name] for name in ("sums", "factors", "distances"))
    whole = watch.seconds.pop("usual") * count / len(positions)
    parts = ", ".join(f"{name} {seconds:.1f}" for name, seconds in watch.seconds.items())
    factor = detector.gaussians.factor.nbytes
    print(
        f"{options.backbone}, {options.dims} dims, {options.train} + {options.test} images, {options.threads} threads"
    )
    print(f"CPU s   imports and network {made:8.1f}")
    print(f"        fit                 {fitted - made:8.1f}")
    print(f"        predict             {done - fitted:8.1f}")
    print(f"        fit + predict       {done - made:8.1f}   of it {parts}")
    print(
        f"peak RSS                    {peak / 1e9:8.2f} GB of the whole process; the factors are {factor / 1e9:.2f} GB"
    )
    print(f"usual way, CPU s            {whole:8.1f}   scaled up from {len(positions)} of {count} positions")
    print(f"ours, the same work         {ours:8.1f}   ratio {whole / ours:.1f}")
    print(f"largest relative difference of a distance: {np.max(np.abs(kept.scored.numpy() - expected) / expected):.1e}")


if __name__ == "__main__":
    main()
