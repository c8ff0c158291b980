"""Range and channels of deep images as users declare them, and the projection of many channels to grey or RGB.

Images of more than three channels (multispectral), or of which some channels are to be seen, are projected by a linear
map of each pixel, a :class:`iadbe.types.ChannelProjection`:

* chosen channels: one becomes grey, three become RGB
* ``mean``: the mean of all channels, grey
* ``pca``: the first three principal components of the pixels of normal training images; four standard deviations
  to either side of their mean become black and white (Jolliffe, "Principal Component Analysis", 2002)
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from iadbe.errors import BadConfig, BadData, did_you_mean
from iadbe.types import ChannelProjection, IntensityRange

MEAN, PCA = "mean", "pca"
DEVIATIONS = 4.0  # of a principal component, between its mean and black, and its mean and white
HOW = "such as --data.channels 0,1,2 or 3, or mean, or pca"


def declared_range(values: Sequence[float]) -> IntensityRange | None:
    """Return the range that a parameter declares, (low, high) or nothing. Raises :class:`BadConfig` otherwise."""
    if not values:
        return None
    if len(values) != 2 or not values[0] < values[1]:
        raise BadConfig(f"range is the value of black and the higher one of white, such as 0,4095, not {list(values)}.")
    return IntensityRange(float(values[0]), float(values[1]), "declared")


def declared_channels(value: Sequence[int] | str) -> tuple[int, ...] | str:
    """Return the channels that a parameter declares: one or three numbers, mean, pca or nothing.

    Raises :class:`BadConfig` otherwise.
    """
    if isinstance(value, str):
        if value in ("", MEAN, PCA):
            return value or ()
        if not re.fullmatch(r"[0-9]+", value):
            hint = did_you_mean(value, (MEAN, PCA))
            raise BadConfig(f"channels are numbers from 0, {MEAN} or {PCA}, not {value!r}.{hint}")
        value = (int(value),)
    if len(value) not in (0, 1, 3) or any(number < 0 for number in value):
        raise BadConfig(f"channels are one number from 0, for grey, or three, for RGB, not {list(value)}.")
    return tuple(value)


def check_together(values: Sequence[float], channels: tuple[int, ...] | str) -> None:
    """Raise :class:`BadConfig` for a range beside the channels ``pca``, which have a range of their own."""
    if values and channels == PCA:
        raise BadConfig("channels=pca learns a range of its own. Leave out range, or choose channels or mean.")


def chosen(channels: tuple[int, ...] | str, count: int) -> ChannelProjection:
    """Return the projection of images with ``count`` channels to the declared ones, or to their mean.

    Raises :class:`BadData` where an image has too few channels.
    """
    if channels == MEAN:
        return ChannelProjection(((1.0 / count,) * count,), (0.0,), f"the mean of {count} channels")
    numbers = [int(number) for number in channels]
    if max(numbers) >= count:
        text = "1 channel" if count == 1 else f"{count} channels"
        raise BadData(f"the images have {text}, and channels asks for number {max(numbers)}, counted from 0.")
    rows = tuple(tuple(float(number == i) for i in range(count)) for number in numbers)
    what = "channel" if len(numbers) == 1 else "channels"
    return ChannelProjection(rows, (0.0,) * len(rows), f"{what} {', '.join(map(str, numbers))} of {count}")


class Moments:
    """Mean and covariance of pixels, added up image by image in double precision."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = np.zeros(0)
        self.scatter = np.zeros((0, 0))

    def add(self, pixels: np.ndarray) -> None:
        """Add pixels (N, C), by the rule of Chan et al. for joining two sets (1979)."""
        pixels = pixels.astype(np.float64)
        if not self.count:
            self.mean, self.scatter = np.zeros(pixels.shape[1]), np.zeros((pixels.shape[1],) * 2)
        mean = pixels.mean(axis=0)
        centred = pixels - mean
        total = self.count + len(pixels)
        shift = mean - self.mean
        self.scatter += centred.T @ centred + np.outer(shift, shift) * (self.count * len(pixels) / total)
        self.mean += shift * (len(pixels) / total)
        self.count = total


def principal(moments: Moments) -> ChannelProjection:
    """Return the projection to the first three principal components, scaled to [0, 1].

    The sign of a component is such that its largest weight is positive. A component without variance, or one that there
    is not because there are fewer channels, is constant.
    """
    variances, vectors = np.linalg.eigh(moments.scatter / max(1, moments.count))
    least = 1e-12 * max(float(variances[-1]), 1e-300)
    rows, offsets, shares = [], [], []
    for number in range(3):
        known = number < len(variances) and variances[-1 - number] > least
        vector = vectors[:, -1 - number] if known else np.zeros(len(variances))
        vector = vector * np.sign(vector[np.abs(vector).argmax()] or 1.0)
        row = vector / (2 * DEVIATIONS * np.sqrt(variances[-1 - number])) if known else vector
        rows.append(tuple(map(float, row)))
        offsets.append(float(0.5 - row @ moments.mean))
        shares.append(variances[-1 - number] if known else 0.0)
    explained = 100 * sum(shares) / max(float(variances.sum()), 1e-300)
    source = f"principal components of {len(variances)} channels ({explained:.3g} % of the variance)"
    return ChannelProjection(tuple(rows), tuple(offsets), source)


def projected(values: np.ndarray, projection: ChannelProjection) -> np.ndarray:
    """Return (H, W, C) as (H, W), for one row, or (H, W, 3), in single precision.

    Raises :class:`BadData` for another number of channels than the projection has weights.
    """
    count = len(projection.weights[0])
    if values.shape[2] != count:
        raise BadData(f"it has {values.shape[2]} channels, and the images before it had {count} ({projection.source}).")
    weights = np.array(projection.weights, np.float32)
    found: np.ndarray = values.astype(np.float32) @ weights.T + np.array(projection.offset, np.float32)
    return found[..., 0] if len(weights) == 1 else found
