"""Values of deep images, from levels and as they are given."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from iadbe.errors import BadData
from iadbe.files import channels, image_io
from iadbe.files.decoding import Raster
from iadbe.runtime.deep_values import channels_of, given_values, intensity_of, values_of
from iadbe.types import ChannelProjection, IntensityRange

LEVELS = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
PROJECTION = ChannelProjection(((0.5, 0.25, 0.0, 0.1), (0.0, 1.0, -1.0, 0.0), (0.3, 0.0, 0.0, 0.9)), (0.1, 0.5, 0.2))


@pytest.mark.parametrize(
    "intensity",
    [
        IntensityRange(0, 4095, "declared"),
        IntensityRange(-20, 90, "declared"),
        IntensityRange(0, 65535, "declared", ChannelProjection(((0.25,) * 4,), (0.0,), "mean")),
        IntensityRange(0, 1, "learnt", PROJECTION),
    ],
)
def test_values_of_levels_are_read_as_these_levels(intensity):
    values = values_of(LEVELS, intensity)
    assert (values.dtype, values.shape[2]) == (np.float32, channels_of(intensity))
    if intensity.projection is not None:
        values = channels.projected(values, intensity.projection)
    levels = image_io._to_uint8(Raster(values, 0), "x.tif", intensity)
    assert np.array_equal(levels if levels.ndim == 3 else np.repeat(levels[:, :, None], 3, axis=2), LEVELS)
    assert intensity_of({"intensity": json.loads(json.dumps(asdict(intensity)))}) == intensity


def test_raw_values_are_taken_as_they_are_and_grey_ones_three_times():
    intensity = IntensityRange(0, 4095)
    raw = np.random.default_rng(0).integers(0, 4096, (2, 8, 9, 3), dtype=np.uint16)
    assert np.array_equal(given_values(raw, intensity), raw.astype(np.float32))
    assert np.array_equal(given_values(raw[..., :1], intensity), np.repeat(raw[..., :1], 3, axis=3))
    spectral = np.zeros((1, 8, 9, 4), np.uint8)
    assert given_values(spectral, IntensityRange(projection=PROJECTION)).shape == spectral.shape


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 4, 4, 2), np.uint16), np.zeros((4, 4, 3), np.uint16), np.full((1, 4, 4, 3), np.nan), np.array("x")],
)
def test_other_images_are_refused(images):
    with pytest.raises(BadData, match="deep images"):
        given_values(images, IntensityRange())


@pytest.mark.parametrize(
    "found",
    [
        3,
        {"low": 0, "high": 1},
        {"low": "a", "high": 1, "source": "", "projection": None},
        {"low": 0, "high": 1, "source": "", "projection": {"weights": [[1], [1]], "offset": [0, 0], "source": ""}},
    ],
)
def test_a_damaged_card_is_one_sentence(found):
    with pytest.raises(BadData, match="range of intensities that cannot be read"):
        intensity_of({"intensity": found})
    assert intensity_of({}) is None
