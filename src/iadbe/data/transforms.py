"""Altered images as data: a sample says how it is altered, and whoever reads it sees it so.

A change is written ``name=value``. It is applied to the image as the file holds it, before any view, as if the camera
had delivered it so. Lengths are in 256ths of the image's shorter side, so that a change means the same at any size.
Masks, regions and depth follow changes of geometry; what comes into view from outside is mirrored at the border.
What is random follows from the sample's id.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from iadbe.dataset import Dataset, Region
from iadbe.errors import BadConfig, did_you_mean
from iadbe.types import Sample

UNIT = 256  # parts of the shorter side
AT = "@"  # between a sample's id and its change


def changed(sample: Sample, name: str, value: float) -> Sample:
    """Return the same image altered, under an id of its own."""
    if name not in KINDS:
        raise BadConfig(f"there is no change {name!r}.{did_you_mean(name, KINDS)} There are: {', '.join(KINDS)}.")
    if sample.change:
        raise BadConfig(f"{sample.id} is altered already.")
    change = f"{name}={value:g}"
    return replace(sample, id=f"{sample.id}{AT}{change}", change=change)


def named(id_: str, samples: Mapping[str, Sample]) -> Sample | None:
    """Return the sample of an id, which may be one that :func:`changed` has made of one of ``samples``; or None."""
    if id_ in samples:
        return samples[id_]
    before, _, change = id_.rpartition(AT)
    name, _, value = change.partition("=")
    return changed(samples[before], name, float(value)) if before in samples and name in KINDS else None


class Changed(Dataset):
    """A dataset whose samples may be altered ones."""

    def __init__(self, dataset: Dataset) -> None:
        """Look at a dataset.

        Args:
            dataset: where the images come from
        """
        self.dataset = dataset
        self.root: Path = dataset.root
        self.gives = dataset.gives

    @property
    def categories(self) -> tuple[str, ...]:
        return self.dataset.categories

    def samples(self) -> tuple[Sample, ...]:
        return self.dataset.samples()

    def image(self, sample: Sample) -> np.ndarray:
        return applied(self.dataset.image(original(sample)), sample)

    def mask(self, sample: Sample) -> np.ndarray | None:
        mask = self.dataset.mask(original(sample))
        return None if mask is None else moved(mask, sample)

    def regions(self, sample: Sample) -> tuple[Region, ...]:
        return tuple(r._replace(mask=moved(r.mask, sample)) for r in self.dataset.regions(original(sample)))

    def depth(self, sample: Sample) -> np.ndarray | None:
        depth = self.dataset.depth(original(sample))
        return None if depth is None else moved(depth, sample)

    def digest(self) -> str:
        return self.dataset.digest()


def original(sample: Sample) -> Sample:
    """Return the image as it was."""
    return replace(sample, id=sample.id.removesuffix(AT + sample.change), change="") if sample.change else sample


def applied(pixels: np.ndarray, sample: Sample) -> np.ndarray:
    """Return a sample's image (H, W, 3) uint8 with its change."""
    if not sample.change:
        return pixels
    name, value, rng = _read(sample)
    if name in GEOMETRY:
        return warped(pixels, GEOMETRY[name](pixels.shape[0], pixels.shape[1], value, rng))
    return LIGHT[name](pixels, value, rng)


def moved(field: np.ndarray, sample: Sample) -> np.ndarray:
    """Return a mask (H, W) bool, or a depth (H, W) float32, where a sample's change has moved it."""
    name, value, rng = _read(sample)
    if name not in GEOMETRY:
        return field
    return warped(field, GEOMETRY[name](field.shape[0], field.shape[1], value, rng))


def _read(sample: Sample) -> tuple[str, float, np.random.Generator]:
    name, _, value = sample.change.partition("=")
    seed = hashlib.blake2b(sample.id.encode(), digest_size=8).digest()
    return name, float(value or 0), np.random.default_rng(int.from_bytes(seed, "big"))


def warped(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Show at (x, y) what is at ``matrix @ (x, y, 1)``: (H, W, 3) uint8 bilinear, (H, W) bool or float32 nearest."""
    height, width = pixels.shape[:2]
    x, y, z = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    x, y = x / z, y / z
    left, right = (max(0, math.ceil(far - 1e-6)) + 1 for far in (-x.min(), x.max() - width))
    top, bottom = (max(0, math.ceil(far - 1e-6)) + 1 for far in (-y.min(), y.max() - height))
    sides = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
    padded = np.pad(pixels.astype(np.uint8) if pixels.dtype == bool else pixels, sides, mode="symmetric")
    matrix = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]]) @ matrix
    how = Image.Resampling.BILINEAR if pixels.ndim == 3 else Image.Resampling.NEAREST
    coefficients = (matrix / matrix[2, 2]).flatten()[:8].tolist()
    shown = Image.fromarray(padded).transform((width, height), Image.Transform.PERSPECTIVE, coefficients, how)
    return np.array(shown).astype(pixels.dtype)


def _about(height: int, width: int, turn: list[list[float]]) -> np.ndarray:
    """Return the matrix that does ``turn`` (2, 2) about the middle."""
    there = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    whole = np.eye(3)
    whole[:2, :2] = turn
    return there @ whole @ np.linalg.inv(there)


def _rotation(height: int, width: int, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Turn about the middle, counterclockwise."""
    cos, sin = (round(f(math.radians(degrees)), 12) for f in (math.cos, math.sin))  # a quarter turn is exact
    return _about(height, width, [[cos, -sin], [sin, cos]])


def _scale(height: int, width: int, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Show everything ``factor`` times as large."""
    return _about(height, width, [[1 / factor, 0], [0, 1 / factor]])


def _translation(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Move to the right and down by a share of the sides."""
    return np.array([[1, 0, -share * width], [0, 1, -share * height], [0, 0, 1]])


def _flip(height: int, width: int, which: float, rng: np.random.Generator) -> np.ndarray:
    """Mirror left and right (1), top and bottom (2), or both (3)."""
    return _about(height, width, [[-1 if int(which) & 1 else 1, 0], [0, -1 if int(which) & 2 else 1]])


def _perspective(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Pull each corner inwards by up to half the share of the sides, at random."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    inwards = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    there = corners + inwards * rng.uniform(0, share / 2, (4, 2)) * (width, height)
    rows, values = [], []
    for (x, y), (u, v) in zip(there, corners, strict=True):  # what is now at (x, y) was the corner (u, v)
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def _brightness(pixels: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """Raise the value of HSV by a share of its range; the hue stays."""
    value = pixels.max(2, keepdims=True).astype(np.float32)
    raised = np.clip(value + 255 * more, 0, 255)
    return _bytes(np.where(value > 0, pixels * (raised / np.maximum(value, 1)), raised))


def _contrast(pixels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Bring values nearer to each channel's mean."""
    mean = pixels.mean((0, 1), dtype=np.float64).astype(np.float32)
    return _bytes((pixels - mean) * np.float32(factor) + mean)


def _blur(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian of so many units."""
    radius = sigma * min(pixels.shape[:2]) / UNIT
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise, its deviation a share of the range, in grains of one unit."""
    height, width = pixels.shape[:2]
    grain = max(1.0, min(height, width) / UNIT)
    down, across = ((np.arange(side) / grain).astype(int) for side in (height, width))
    noise = rng.standard_normal((down[-1] + 1, across[-1] + 1, 3), np.float32)
    return _bytes(pixels + 255 * np.float32(deviation) * noise[down][:, across])


def _jpeg(pixels: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    """Save as JPEG of a quality from 1 to 95, and read it again."""
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=int(quality))
    with Image.open(data) as again:
        return np.array(again.convert("RGB"))


def _colour(pixels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply brightness, and then contrast, by a factor."""
    image = ImageEnhance.Brightness(Image.fromarray(pixels)).enhance(factor)
    return np.array(ImageEnhance.Contrast(image).enhance(factor))


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(values.clip(0, 255)).astype(np.uint8)


Geometry = Callable[[int, int, float, np.random.Generator], np.ndarray]  # to the matrix (3, 3) of `warped`
Light = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # (H, W, 3) uint8 to the same
GEOMETRY: Mapping[str, Geometry] = {
    "rotation": _rotation,
    "scale": _scale,
    "translation": _translation,
    "flip": _flip,
    "perspective": _perspective,
}
LIGHT: Mapping[str, Light] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "colour": _colour,
}
KINDS = (*GEOMETRY, *LIGHT)
