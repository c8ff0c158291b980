"""Images drawn in memory, and real ones, for the tests of what looks at images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dataset_trees import real
from iadbe.data.images import Images, View
from iadbe.dataset import Dataset
from iadbe.metrics.auroc import AUROC
from iadbe.registry import load
from iadbe.types import Sample, TrainingImage, TrainingLabel


class Drawn(Dataset):
    """Pixels by sample name; counts how often each image is opened."""

    root = Path()

    def __init__(self, pixels):
        self.pixels = {f"{i:03d}": p for i, p in enumerate(pixels)}
        self.opened = []

    @property
    def categories(self):
        return ("part",)

    def samples(self):
        return tuple(Sample(name, "part", "train", "good", f"{name}.png") for name in self.pixels)

    def image(self, sample):
        self.opened.append(sample.id)
        return self.pixels[sample.id]


def images(pixels, view=None, labels=None):
    """Return images (H, W, 3) uint8 as a detector sees them, by default at their own size and labels to be normal."""
    dataset = Drawn(pixels)
    labels = labels or [TrainingLabel.NORMAL] * len(pixels)
    examples = [TrainingImage(s, t) for s, t in zip(dataset.samples(), labels, strict=True)]
    return Images(dataset, examples, view or View(len(pixels[0])))


def batch(pixels, view=None):
    """Return all images in one batch."""
    return next(images(pixels, view).batches(len(pixels)))


def parts(count, *, seed=0, side=64, defective=False):
    """Draw a round part on a striped ground, in slightly differing light and place; defective ones have a dark dent."""
    rng = np.random.default_rng([seed, defective])
    y, x = np.mgrid[:side, :side] / side
    drawn = []
    for _ in range(count):
        dy, dx = rng.uniform(-0.02, 0.02, 2)
        light = rng.uniform(0.9, 1.0)
        ground = 0.35 + 0.1 * np.sin(2 * np.pi * (8 * x + dx * 4))
        part = np.hypot(y - 0.5 - dy, x - 0.5 - dx) < 0.33
        grey = np.where(part, 0.8, ground)
        if defective:
            angle, far = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.2)
            centre = 0.5 + far * np.sin(angle), 0.5 + far * np.cos(angle)
            grey = np.where(np.hypot(y - centre[0], x - centre[1]) < 0.08, 0.1, grey)
        colour = grey[:, :, None] * light * np.array([1.0, 0.95, 0.85])
        noisy = colour + rng.normal(0, 0.01, (side, side, 3))
        drawn.append((noisy.clip(0, 1) * 255).round().astype(np.uint8))
    return drawn


def dents_shown(dented, maps, within):
    """Count on how many of the drawn parts the map is highest within so many pixels of the dent's middle."""
    count = 0
    for pixels, map_ in zip(dented, maps, strict=True):
        dark = np.argwhere(pixels.max(2) < 40).mean(0)
        count += np.hypot(*(dark - np.unravel_index(int(map_.argmax()), map_.shape))) < within
    return count


def assert_dents_are_found(detector, above=0.9, shown=7, within=64 / 4):
    """Most dented parts score higher than good ones, and on so many of eight the map is highest near the dent.

    Return the prediction of the dented ones.
    """
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert (bad.score[:, None] > good.score).float().mean() > above
    assert dents_shown(dented, bad.map, within) >= shown
    return bad


def image_auroc(detector, test):
    """Return the AUROC of the scores of images with and without anomalies."""
    score = np.concatenate([detector.predict(shown).score.numpy() for shown in test.batches(16)])
    return AUROC()(np.array([e.sample.is_anomaly for e in test.items]), score)


def bottles(view):
    """Return the real bottles of MVTec AD to train on and to test, or skip the test."""
    dataset = load("datasets", "mvtec_ad")(str(real("mvtec_ad")))
    samples = [s for s in dataset.samples() if s.category == "bottle"]
    return tuple(
        Images(dataset, [TrainingImage(s) for s in samples if s.split == split], view) for split in ("train", "test")
    )
