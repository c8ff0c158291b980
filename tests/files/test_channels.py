import numpy as np
import pytest

from iadbe.errors import BadConfig, BadData
from iadbe.files import channels
from iadbe.types import IntensityRange

RNG = np.random.default_rng(0)


def test_a_range_that_is_none_is_refused():
    for wrong in ((1.0,), (5.0, 5.0), (3.0, 1.0)):
        with pytest.raises(BadConfig, match=r"range is the value of black and the higher one of white"):
            channels.declared_range(wrong)
    assert channels.declared_range(()) is None
    assert channels.declared_range((-1, 1)) == IntensityRange(-1.0, 1.0, "declared")


def test_channels_are_one_or_three_numbers_or_a_word():
    assert channels.declared_channels("") == channels.declared_channels(()) == ()
    assert channels.declared_channels("7") == (7,)
    assert channels.declared_channels([0, 3, 5]) == (0, 3, 5)
    assert channels.declared_channels("pca") == "pca"
    for wrong in ((0, 1), (0, 1, 2, 3), (-1,)):
        with pytest.raises(BadConfig, match="channels are one number from 0, for grey, or three, for RGB"):
            channels.declared_channels(wrong)
    with pytest.raises(BadConfig, match=r"channels are numbers from 0, mean or pca, not 'pcaa'\. Did you mean pca"):
        channels.declared_channels("pcaa")


def test_principal_components_have_a_range_of_their_own():
    with pytest.raises(BadConfig, match="channels=pca learns a range of its own"):
        channels.check_together((0, 1), "pca")
    channels.check_together((), "pca")
    channels.check_together((0, 1), "mean")


def test_moments_of_parts_are_those_of_the_whole():
    pixels = RNG.normal(50000, 3, (1000, 4)) @ RNG.normal(0, 1, (4, 4))
    moments = channels.Moments()
    for part in np.split(pixels, [100, 101, 600]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, pixels.mean(axis=0))
    np.testing.assert_allclose(moments.scatter / 1000, np.cov(pixels.T, bias=True), rtol=1e-6)


def test_the_mean_weighs_all_channels_alike():
    values = RNG.random((3, 4, 6)).astype(np.float32)
    found = channels.projected(values, channels.chosen("mean", 6))
    np.testing.assert_allclose(found, values.mean(axis=2), rtol=1e-5)
    with pytest.raises(BadData, match=r"it has 6 channels, and the images before it had 5 \(the mean of 5 channels\)"):
        channels.projected(values, channels.chosen("mean", 5))
