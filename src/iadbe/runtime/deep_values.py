"""Deep images for exported files: from 8-bit levels, as images are read, to the values that the file takes.

A file of a model of deep images (more than 8 bits, or of other channels than RGB) takes raw values, (N, H, W, C)
float32, and scales them itself by the range in its card. Images that are read by IADBE come scaled already, by the same
range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from iadbe.errors import BadData
from iadbe.types import ChannelProjection, IntensityRange


def intensity_of(card: Mapping[str, Any]) -> IntensityRange | None:
    """Return the range of a file's card; None: it takes 8-bit images. Raises :class:`BadData` for a damaged card."""
    found = card.get("intensity")
    if found is None:
        return None
    try:
        projection = found["projection"]
        if projection is not None:
            rows = tuple(tuple(float(weight) for weight in row) for row in projection["weights"])
            offset = tuple(float(value) for value in projection["offset"])
            if len(rows) not in (1, 3) or len(offset) != len(rows) or len({len(row) for row in rows}) != 1:
                raise ValueError("the projection has another shape")
            projection = ChannelProjection(rows, offset, str(projection["source"]))
        return IntensityRange(float(found["low"]), float(found["high"]), str(found["source"]), projection)
    except (TypeError, ValueError, LookupError) as error:
        raise BadData(f"the file's card has a range of intensities that cannot be read ({error}).") from error


def channels_of(intensity: IntensityRange) -> int:
    """Return the number of channels that images have before they are projected; 3 without a projection."""
    return 3 if intensity.projection is None else len(intensity.projection.weights[0])


def values_of(levels: np.ndarray, intensity: IntensityRange) -> np.ndarray:
    """Return values (..., C) float32 that are scaled to ``levels`` (..., 3), uint8, by the range."""
    values = intensity.low + levels.astype(np.float64) * ((intensity.high - intensity.low) / 255)
    if intensity.projection is not None:  # the smallest values with this projection
        weights, offset = np.array(intensity.projection.weights), np.array(intensity.projection.offset)
        values = (values[..., : len(weights)] - offset) @ np.linalg.pinv(weights).T
    return values.astype(np.float32)


def given_values(images: np.ndarray, intensity: IntensityRange) -> np.ndarray:
    """Return images (N, H, W, C) as the file takes them, float32.

    ``images`` are raw values of C channels, or levels, (N, H, W, 3) uint8. Raises :class:`BadData` for others.
    """
    if images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8:
        return values_of(images, intensity)
    channels = channels_of(intensity)
    if images.ndim != 4 or images.shape[3] not in (channels, 1 if intensity.projection is None else channels):
        raise BadData(f"deep images are (N, H, W, {channels}), not {images.shape}.")
    if images.dtype.kind not in "uif" or not np.isfinite(images).all():
        raise BadData("deep images hold finite numbers.")
    return np.repeat(images, channels // images.shape[3], axis=3).astype(np.float32)
