"""Range and channels of deep images (more than 8 bits), declared with the data or learnt from its normal images.

A 12-bit camera often writes its values into 16-bit files, and floating-point files have no largest value. So the range
is chosen for a whole data set: from normal training images, never from the image that is scored. The same holds for the
principal components to which the channels of multi-channel images are projected.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from iadbe.dataset import Dataset, evenly_spaced
from iadbe.errors import BadData, Missing, number_of
from iadbe.files import channels, image_io, pages
from iadbe.files.decoding import Raster
from iadbe.types import ChannelProjection, IntensityRange, Sample

SAMPLED = 256  # images, evenly spaced; bit depths are few, so more would not change the choice
BRIGHT = 0.999  # quantile of an image that counts as its highest value: a hot pixel does not
WHITE_LEVELS = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)  # white in floating point, 8, 10, 12, 14 and 16 bits
FACTOR = 8  # a usual range is taken where the images fill at least so much of it
PIXELS = 65536  # of an image, evenly spaced, that count in the principal components


def learn(dataset: Dataset, samples: Iterable[Sample]) -> IntensityRange | None:
    """Return the range of a dataset: the declared one, or that of ``samples``, normal training images.

    None: none of them is deep. Integers get the smallest usual bit depth that holds their brightest values;
    floating-point numbers get 0 to 1, or another usual range that they fill, or else their own highest value. Where the
    dataset declares channels, the range holds their projection too, whatever the depth of the images.
    """
    declared = dataset.intensity
    if declared is not None and (declared.projection is not None or not dataset.channels):
        return declared
    samples = tuple(samples)
    few = evenly_spaced(samples, SAMPLED)
    if dataset.channels:
        return _learn_projection(dataset, few)
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


def _learn_projection(dataset: Dataset, samples: list[Sample]) -> IntensityRange | None:
    """Return the projection of the declared channels, with its range; None where no image can be read."""
    moments, highest, integers, count = channels.Moments(), 0.0, True, 0
    projection: ChannelProjection | None = None
    for raster in _rasters(dataset, samples):
        values, count = raster.values, count + 1
        if dataset.channels == channels.PCA:
            if moments.count and values.shape[2] != len(moments.mean):
                raise BadData(f"the images have {len(moments.mean)} channels, and one of them {values.shape[2]}.")
            flat = values.reshape(-1, values.shape[2])
            moments.add(flat[np.unique(np.linspace(0, len(flat) - 1, PIXELS).astype(np.int64))])
            continue
        projection = projection or channels.chosen(dataset.channels, values.shape[2])
        integers &= values.dtype.kind in "ui"
        highest = max(highest, float(np.quantile(channels.projected(values, projection), BRIGHT)))
    learnt = f"learnt from {number_of(count, 'normal image')}"
    if moments.count:
        return IntensityRange(0.0, 1.0, learnt, channels.principal(moments))
    if projection is None:
        return dataset.intensity
    if declared := dataset.intensity:
        return IntensityRange(declared.low, declared.high, declared.source, projection)
    return IntensityRange(0.0, _white(highest, integers), learnt, projection)


def _rasters(dataset: Dataset, samples: list[Sample]) -> Iterator[Raster]:
    """Yield all channels of the image files that can be read; reading the others raises their errors again."""
    for sample in samples:
        path = dataset.root / sample.image
        try:
            raster = image_io.read_channels(path) if pages.file_of(path).is_file() else None
        except (BadData, Missing):
            continue
        if raster is not None and np.isfinite(raster.values).all():
            yield raster


def _deep_values(dataset: Dataset, sample: Sample) -> np.ndarray | None:
    """Return the values of a deep image file; None for other images and for files that cannot be read."""
    path = dataset.root / sample.image
    try:
        if not pages.file_of(path).is_file() or not image_io.read_header(path).deep:
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
