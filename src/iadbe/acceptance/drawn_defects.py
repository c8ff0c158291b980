"""The smallest defect that is found: spots of known size and contrast, drawn onto good parts of one's own.

A spot is a disc with a soft edge of a pixel, brighter or darker than what is below it. Its place is drawn within the
middle of the image, or within the pixels that count where the model ignores others. Only images that are called good
without a spot are taken, so what is found is the spot.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from iadbe.errors import BadConfig
from iadbe.evaluation.conformal import Rate, clopper_pearson

DIAMETERS = (0.005, 0.01, 0.02, 0.04, 0.08)  # share of the image's shorter side
CONTRASTS = (0.1, 0.2, 0.4, 0.8)  # of the range from black to white
MIDDLE = 0.6  # share of height and width in which spots lie
FOUND = 0.9  # share of the spots from which a size counts as found

Find = Callable[[list[np.ndarray]], list[bool]]  # images (H, W, 3) uint8 -> whether each is not called good


@dataclass(frozen=True)
class Detection:
    """How many spots of one size and contrast were found."""

    diameter: float  # share of the shorter side
    pixels: float  # the diameter in pixels of the image
    contrast: float
    rate: Rate


@dataclass(frozen=True)
class DetectionCurve:
    """All sizes and contrasts."""

    detections: tuple[Detection, ...]
    images: int  # for each size and contrast

    def smallest(self, contrast: float) -> Detection | None:
        """Return the smallest spot of a contrast of which, as of all larger ones, nine in ten were found; or None."""
        found = None
        for one in sorted(self.of(contrast), key=lambda d: -d.diameter):
            if one.rate.value < FOUND:
                break
            found = one
        return found

    def of(self, contrast: float) -> list[Detection]:
        """Return the detections of one contrast, the smallest spot first."""
        return sorted((d for d in self.detections if d.contrast == contrast), key=lambda d: d.diameter)


def detection_curve(
    images: Sequence[np.ndarray],
    find: Find,
    count: int,
    seed: int = 0,
    counts_at: Callable[[int, int], np.ndarray | None] = lambda height, width: None,
) -> DetectionCurve:
    """Draw spots onto images and see which are found.

    Args:
        images: good parts, (H, W, 3) uint8 each, that are called good
        find: says whether images are not called good
        count: spots for each size and contrast
        seed: of places and signs
        counts_at: from height and width to which pixels count, (H, W) bool; None: all

    Raises :class:`BadConfig` without images.
    """
    if not images:
        raise BadConfig("no good image is called good, so nothing can be drawn on one.")
    rng, detections = np.random.default_rng(seed), []
    for diameter in DIAMETERS:
        for contrast in CONTRASTS:
            drawn, pixels = [], []
            for n in range(count):
                image = images[(n + int(rng.integers(len(images)))) % len(images)]
                pixels.append(diameter * min(image.shape[:2]))
                sign = 1 if rng.random() < 0.5 else -1
                place = _place(rng, image.shape[0], image.shape[1], counts_at(*image.shape[:2]))
                drawn.append(with_spot(image, place, pixels[-1], sign * contrast))
            found = sum(find(drawn))
            detections.append(Detection(diameter, float(np.mean(pixels)), contrast, clopper_pearson(found, count)))
    return DetectionCurve(tuple(detections), count)


def with_spot(image: np.ndarray, place: tuple[float, float], diameter: float, contrast: float) -> np.ndarray:
    """Return an image (H, W, 3) uint8 with a spot at (row, column), of a contrast in [-1, 1] of the full range.

    A spot that would leave the range of grey values goes the other way, so its contrast is there.
    """
    rows, columns = np.ogrid[: image.shape[0], : image.shape[1]]
    distance = np.hypot(rows - place[0], columns - place[1])
    cover = np.clip(diameter / 2 + 0.5 - distance, 0, 1)[..., None] * min(1.0, diameter**2 * np.pi / 4)
    below = float((image * cover).sum() / (3 * cover.sum())) if cover.sum() else float(image.mean())
    change = 255 * contrast if 0 <= below + 255 * contrast <= 255 else -255 * contrast
    return np.clip(np.rint(image + cover * change), 0, 255).astype(np.uint8)


def _place(rng: np.random.Generator, height: int, width: int, counts: np.ndarray | None) -> tuple[float, float]:
    if counts is not None and counts.any():
        place = np.argwhere(counts)[int(rng.integers(counts.sum()))]
        return float(place[0]), float(place[1])
    row, column = (1 - MIDDLE) / 2 + MIDDLE * rng.random(2)
    return float(row * height), float(column * width)
