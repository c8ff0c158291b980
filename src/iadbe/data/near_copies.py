"""Finds near-copies among images: the same part imaged again, recompressed, flipped or slightly moved.

Images of one product resemble each other, so plain perceptual hashes call all of them copies. Here each image becomes
a small grey thumbnail, and what all images of the category share is taken away: the mean thumbnail, its changes with
light and pose (as in the tangent distance of Simard et al., 1993), and the largest principal components. Two images are
near-copies if what remains of them correlates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

SIDE = 32  # pixels of a thumbnail
MIN_CORRELATION = 0.88  # of near-copies; different parts of the published data that was tried stay below 0.82
PER_COMPONENT = 10  # images for each principal component that is taken away
MOST_COMPONENTS = 8
CHUNK = 1024  # images compared at a time
FLIPS = (slice(None), slice(None, None, -1))


class Match(NamedTuple):
    """The most similar reference of each query."""

    nearest: np.ndarray  # (M,) indices of the references
    correlation: np.ndarray  # (M,) from -1 to 1


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Return the signature of an image (H, W, 3) uint8: its fine structure, (SIDE, SIDE) float16, of mean 0."""
    small = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    grey = np.asarray(small, np.float32)
    return (grey - ndimage.gaussian_filter(grey, SIDE / 8, mode="nearest")).astype(np.float16)


def find(
    queries: np.ndarray, references: np.ndarray, category: np.ndarray | None = None, *, same: bool = False
) -> Match:
    """Return the most similar of ``references`` (N, S, S) for each of ``queries`` (M, S, S), which may be flipped.

    What images share is estimated from all images of the ``category``, by default the references and the queries. With
    ``same`` both are the same images, and an image is not compared with itself.
    """
    if category is None:
        category = references if same else np.concatenate([references, queries])
    shared = _shared(category)
    known = _residual(references, shared)
    best = np.full(len(queries), -1.0, np.float32)
    index = np.zeros(len(queries), np.intp)
    for rows in FLIPS:
        for columns in FLIPS:
            flipped = _residual(queries[:, rows, columns], shared)
            for start in range(0, len(queries), CHUNK):
                stop = start + CHUNK
                found = flipped[start:stop] @ known.T
                if same:
                    np.fill_diagonal(found[:, start:stop], -1)
                nearest = found.argmax(axis=1)
                value = found[np.arange(len(found)), nearest]
                better = value > best[start:stop]
                index[start:stop][better], best[start:stop][better] = nearest[better], value[better]
    return Match(index, best)


def _shared(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a category's images share: (mean (S * S,), orthonormal changes of it (K, S * S))."""
    flat = images.reshape(len(images), -1).astype(np.float32)
    mean = flat.mean(axis=0)
    changes = _pose_changes(mean.reshape(images.shape[1:]))
    count = min(MOST_COMPONENTS, len(images) // PER_COMPONENT)
    if count:
        changes = np.concatenate([changes, np.linalg.eigh(np.cov(flat, rowvar=False))[1][:, -count:].T])
    return mean, np.linalg.qr(changes.T)[0].T.astype(np.float32)


def _pose_changes(mean: np.ndarray) -> np.ndarray:
    """Return how light, shift, rotation and size change the mean image (S, S), to first or second order."""
    y, x = (axis - (len(mean) - 1) / 2 for axis in np.mgrid[: len(mean), : len(mean)])
    down, right = np.gradient(mean)
    second = [np.gradient(down)[0], np.gradient(down)[1], np.gradient(right)[1]]
    changes = np.stack([mean, down, right, x * right + y * down, x * down - y * right, *second]).reshape(8, -1)
    lengths = np.linalg.norm(changes, axis=1, keepdims=True)
    return changes[lengths[:, 0] > 1e-3] / lengths[lengths[:, 0] > 1e-3][:, :1]


def _residual(images: np.ndarray, shared: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return (N, S * S) float32 of unit length: what distinguishes each image."""
    mean, changes = shared
    rest = images.reshape(len(images), -1).astype(np.float32) - mean
    rest -= (rest @ changes.T) @ changes
    rest /= np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
    return rest
