"""Transforms of images (augmentations and corruptions) that are part of a sample.

A sample's ``transform`` is ``name=value``. It is applied to the image at its own size, before any view. Lengths are in
256ths of the image's shorter side, so a transform means the same at any size. Masks, regions and depth follow geometric
transforms; the border is mirrored. Random numbers follow from the sample's id.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from iadbe.data.wrapped import WrappedDataset
from iadbe.dataset import Defect
from iadbe.errors import BadConfig, did_you_mean
from iadbe.files import region_files
from iadbe.types import Sample

UNIT = 256  # lengths are fractions of the shorter side, in 256ths
AT = "@"  # separates a sample's id from its transform


def with_transform(sample: Sample, name: str, value: float) -> Sample:
    """Return the sample with a transform, under an id of its own. Raises :class:`BadConfig` for an unknown name."""
    if name not in TRANSFORMS:
        raise BadConfig(
            f"there is no transform {name!r}.{did_you_mean(name, TRANSFORMS)} There are: {', '.join(TRANSFORMS)}."
        )
    if sample.transform:
        raise BadConfig(f"{sample.id} has a transform already.")
    transform = f"{name}={value:g}"
    return replace(sample, id=f"{sample.id}{AT}{transform}", transform=transform)


def sample_of_id(id_: str, samples: Mapping[str, Sample]) -> Sample | None:
    """Return the sample of an id, out of ``samples`` or made of one by :func:`with_transform`; None if unknown."""
    if id_ in samples:
        return samples[id_]
    base, _, transform = id_.rpartition(AT)
    name, _, value = transform.partition("=")
    return with_transform(samples[base], name, float(value)) if base in samples and name in TRANSFORMS else None


class TransformedDataset(WrappedDataset):
    """A dataset whose samples may have transforms."""

    def image(self, sample: Sample) -> np.ndarray:
        own = without_transform(sample)
        pixels = self.dataset.image(own)
        if sample.transform and (region := self.dataset.region(own)) is not None:
            pixels = region_files.filled(pixels, region)  # blur and contrast must not carry it inside
        return transform_image(pixels, sample)

    def mask(self, sample: Sample) -> np.ndarray | None:
        mask = self.dataset.mask(without_transform(sample))
        return None if mask is None else transform_mask(mask, sample)

    def region(self, sample: Sample) -> np.ndarray | None:
        region = self.dataset.region(without_transform(sample))
        return None if region is None else transform_mask(region, sample)

    def common_region(self, sample: Sample) -> np.ndarray | None:
        return self.dataset.common_region(without_transform(sample))

    def defects(self, sample: Sample) -> tuple[Defect, ...]:
        own = self.dataset.defects(without_transform(sample))
        return tuple(d._replace(mask=transform_mask(d.mask, sample)) for d in own)

    def depth(self, sample: Sample) -> np.ndarray | None:
        depth = self.dataset.depth(without_transform(sample))
        return None if depth is None else transform_mask(depth, sample)

    def points(self, sample: Sample) -> np.ndarray | None:
        points = self.dataset.points(without_transform(sample))
        if points is None or not sample.transform:
            return points
        return np.stack([transform_mask(np.ascontiguousarray(plane), sample) for plane in np.moveaxis(points, 2, 0)], 2)


def without_transform(sample: Sample) -> Sample:
    """Return the sample without its transform."""
    return (
        replace(sample, id=sample.id.removesuffix(AT + sample.transform), transform="") if sample.transform else sample
    )


def transform_image(pixels: np.ndarray, sample: Sample) -> np.ndarray:
    """Apply the sample's transform to its image (H, W, 3) uint8."""
    if not sample.transform:
        return pixels
    name, value, rng = _parse(sample)
    if name in GEOMETRIC:
        return warp(pixels, GEOMETRIC[name](pixels.shape[0], pixels.shape[1], value, rng))
    return PHOTOMETRIC[name](pixels, value, rng)


def transform_mask(mask: np.ndarray, sample: Sample) -> np.ndarray:
    """Apply the sample's geometric transform to a mask (H, W) bool or a depth map (H, W) float32."""
    name, value, rng = _parse(sample)
    if name not in GEOMETRIC:
        return mask
    return warp(mask, GEOMETRIC[name](mask.shape[0], mask.shape[1], value, rng))


def _parse(sample: Sample) -> tuple[str, float, np.random.Generator]:
    name, _, value = sample.transform.partition("=")
    seed = hashlib.blake2b(sample.id.encode(), digest_size=8).digest()
    return name, float(value or 0), np.random.default_rng(int.from_bytes(seed, "big"))


def warp(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp by the homography ``matrix`` (3, 3), from output to input pixels.

    (H, W, 3) uint8 is interpolated bilinearly, (H, W) bool and float32 by nearest neighbour.
    """
    height, width = pixels.shape[:2]
    x, y, z = matrix @ np.array([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], float)
    x, y = x / z, y / z
    left, right = (max(0, math.ceil(far - 1e-6)) + 1 for far in (-x.min(), x.max() - width))
    top, bottom = (max(0, math.ceil(far - 1e-6)) + 1 for far in (-y.min(), y.max() - height))
    sides = ((top, bottom), (left, right), (0, 0))[: pixels.ndim]
    padded = np.pad(pixels.astype(np.uint8) if pixels.dtype == bool else pixels, sides, mode="symmetric")
    matrix = np.array([[1, 0, left], [0, 1, top], [0, 0, 1]]) @ matrix
    resampling = Image.Resampling.BILINEAR if pixels.ndim == 3 else Image.Resampling.NEAREST
    coefficients = (matrix / matrix[2, 2]).flatten()[:8].tolist()
    shown = Image.fromarray(padded).transform((width, height), Image.Transform.PERSPECTIVE, coefficients, resampling)
    return np.array(shown).astype(pixels.dtype)


def _about_centre(height: int, width: int, linear: list[list[float]]) -> np.ndarray:
    """Return the homography that applies ``linear`` (2, 2) about the centre."""
    centre = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    return centre @ matrix @ np.linalg.inv(centre)


def _rotation(height: int, width: int, degrees: float, rng: np.random.Generator) -> np.ndarray:
    """Rotate about the centre, counterclockwise."""
    cos, sin = (round(f(math.radians(degrees)), 12) for f in (math.cos, math.sin))  # 90 degrees are exact
    return _about_centre(height, width, [[cos, -sin], [sin, cos]])


def _scale(height: int, width: int, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Magnify by ``factor`` about the centre."""
    return _about_centre(height, width, [[1 / factor, 0], [0, 1 / factor]])


def _translation(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Translate to the right and down by a share of the sides."""
    return np.array([[1, 0, -share * width], [0, 1, -share * height], [0, 0, 1]])


def _flip(height: int, width: int, which: float, rng: np.random.Generator) -> np.ndarray:
    """Flip horizontally (1), vertically (2), or both (3)."""
    return _about_centre(height, width, [[-1 if int(which) & 1 else 1, 0], [0, -1 if int(which) & 2 else 1]])


def _perspective(height: int, width: int, share: float, rng: np.random.Generator) -> np.ndarray:
    """Move each corner inwards at random, by up to half the share of the sides."""
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
    inward = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    moved = corners + inward * rng.uniform(0, share / 2, (4, 2)) * (width, height)
    rows, values = [], []
    for (x, y), (u, v) in zip(moved, corners, strict=True):  # the corner (u, v) moves to (x, y)
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return np.append(np.linalg.solve(np.array(rows), np.array(values)), 1).reshape(3, 3)


def _brightness(pixels: np.ndarray, shift: float, rng: np.random.Generator) -> np.ndarray:
    """Add a share of the range to the value channel of HSV."""
    value = pixels.max(2, keepdims=True).astype(np.float32)
    raised = np.clip(value + 255 * shift, 0, 255)
    return _bytes(np.where(value > 0, pixels * (raised / np.maximum(value, 1)), raised))


def _contrast(pixels: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Multiply the difference from each channel's mean by a factor."""
    mean = pixels.mean((0, 1), dtype=np.float64).astype(np.float32)
    return _bytes((pixels - mean) * np.float32(factor) + mean)


def _blur(pixels: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Blur with a Gaussian of standard deviation ``sigma`` units."""
    radius = sigma * min(pixels.shape[:2]) / UNIT
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(radius)))


def _noise(pixels: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Add Gaussian noise with grains of one unit; ``deviation`` is a share of the range."""
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


Geometric = Callable[[int, int, float, np.random.Generator], np.ndarray]  # returns the matrix (3, 3) of `warp`
Photometric = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # (H, W, 3) uint8 to the same
GEOMETRIC: Mapping[str, Geometric] = {
    "rotation": _rotation,
    "scale": _scale,
    "translation": _translation,
    "flip": _flip,
    "perspective": _perspective,
}
PHOTOMETRIC: Mapping[str, Photometric] = {
    "brightness": _brightness,
    "contrast": _contrast,
    "blur": _blur,
    "noise": _noise,
    "jpeg": _jpeg,
    "colour": _colour,
}
TRANSFORMS = (*GEOMETRIC, *PHOTOMETRIC)
