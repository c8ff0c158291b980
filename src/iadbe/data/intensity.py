"""The intensity range of deep images (more than 8 bits), declared with the data or learnt from its normal images.

A 12-bit camera often writes its values into 16-bit files, and floating-point files have no largest value. So the range
is chosen for a whole data set: from normal training images, never from the image that is scored.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io
from iadbe.types import IntensityRange, Sample

SAMPLED = 256  # images, evenly spaced; bit depths are few, so more would not change the choice
BRIGHT = 0.999  # quantile of an image that counts as its highest value: a hot pixel does not
WHITE_LEVELS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # white in floating point, 8, 10, 12, 14 and 16 bits
FACTOR = 8  # a usual range is taken where the images fill at least so much of it


def declared(owner: str, values: Sequence[float]) -> IntensityRange | None:
    """Return the range that a parameter declares, (low, high) or nothing. Raises :class:`BadConfig` otherwise."""
    if not values:
        return None
    if len(values) != 2 or not values[0] < values[1]:
        raise BadConfig(
            f"{owner} is the value of black and the higher one of white, such as 0,4095, not {list(values)}."
        )
    return IntensityRange(float(values[0]), float(values[1]), "declared")


def learn(dataset: Dataset, samples: Iterable[Sample]) -> IntensityRange | None:
    """Return the range of a dataset: the declared one, or that of ``samples``, normal training images.

    None: none of them is deep. Integers get the smallest usual bit depth that holds their brightest values;
    floating-point numbers get 0 to 1, or another usual range that they fill, or else their own highest value.
    """
    if dataset.intensity is not None:
        return dataset.intensity
    samples = tuple(samples)
    few = [samples[int(i)] for i in np.unique(np.linspace(0, len(samples) - 1, SAMPLED).round())] if samples else []
    highest, integers, count = 0.0, True, 0
    for sample in few:
        values = _deep_values(dataset, sample)
        if values is not None:
            count += 1
            integers &= values.dtype.kind in "ui"
            highest = max(highest, float(np.quantile(values, BRIGHT)))
    if not count:
        return None
    return IntensityRange(0.0, _white(highest, integers), f"learnt from {count} normal images")


def _deep_values(dataset: Dataset, sample: Sample) -> np.ndarray | None:
    """Return the values of a deep image file; None for other images and for files that cannot be read."""
    path = dataset.root / sample.image
    try:
        if not path.is_file() or not image_io.read_header(path).deep:
            return None
        values = image_io.read_deep(path)
    except BadData:  # reading the image raises it again
        return None
    return values if values is not None and np.isfinite(values).all() else None


def _white(highest: float, integers: bool) -> float:
    """Return the value of white."""
    if integers:
        return next((white for white in WHITE_LEVELS[1:] if highest <= white), highest)
    filled = [white for white in WHITE_LEVELS if white / FACTOR < highest <= white]
    return filled[0] if filled else highest or 1.0
