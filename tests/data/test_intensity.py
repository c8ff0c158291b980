import numpy as np
import pytest
import tifffile
from PIL import Image

from iadbe.data import intensity
from iadbe.datasets.folder import Folder
from iadbe.errors import BadConfig
from iadbe.types import IntensityRange

RNG = np.random.default_rng(0)


def dataset(root, arrays, **given):
    """Return a folder dataset of these normal images, and their samples."""
    (root / "good").mkdir(exist_ok=True)
    for number, array in enumerate(arrays):
        tifffile.imwrite(root / f"good/{number}.tif", array)
    made = Folder(str(root), normal_split_ratio=0, **given)
    return made, made.samples()


def integers(high, count=4):
    return [RNG.integers(0, high, (32, 32)).astype(np.uint16) for _ in range(count)]


@pytest.mark.parametrize(
    ("high", "white"), [(200, 255), (1000, 1023), (1024, 1023), (4000, 4095), (16000, 16383), (40000, 65535)]
)
def test_integers_get_the_usual_bit_depth_that_holds_them(tmp_path, high, white):
    found = intensity.learn(*dataset(tmp_path, integers(high)))
    assert (found.low, found.high) == (0, white)
    assert found.source == "learnt from 4 normal images"


@pytest.mark.parametrize(("scale", "white"), [(0.9, 1), (1.0, 1), (200, 255), (4000, 4095), (30.0, 30.0), (1.3, 1.3)])
def test_floating_point_numbers_get_a_usual_range_or_their_own(tmp_path, scale, white):
    arrays = [np.linspace(0, scale, 4096, dtype=np.float32).reshape(64, 64) for _ in range(3)]
    assert intensity.learn(*dataset(tmp_path, arrays)).high == pytest.approx(white, rel=2e-3)


def test_a_hot_pixel_of_one_image_changes_nothing(tmp_path):
    arrays = integers(4000)
    arrays[0][0, 0] = 65535
    assert intensity.learn(*dataset(tmp_path, arrays)).high == 4095
    floats = [RNG.random((64, 64)).astype(np.float32) for _ in range(3)]
    floats[1][0, 0] = 1.001
    (tmp_path / "b").mkdir()
    assert intensity.learn(*dataset(tmp_path / "b", floats)).high == 1


def test_a_declared_range_wins_and_scales_the_images(tmp_path):
    made, samples = dataset(tmp_path, integers(4000), intensity=(0.0, 8191.0))
    assert intensity.learn(made, samples) == IntensityRange(0, 8191, "declared")
    assert made.image(samples[0]).max() < 130
    made, _ = dataset(tmp_path, [])
    made.intensity = intensity.learn(made, samples)
    assert made.image(samples[0]).max() > 240


def test_images_of_8_bits_have_no_range(tmp_path):
    (tmp_path / "good").mkdir()
    Image.new("RGB", (8, 8), (9, 99, 199)).save(tmp_path / "good/a.png")
    made = Folder(str(tmp_path))
    assert intensity.learn(made, made.samples()) is None
    assert intensity.learn(made, ()) is None


def test_a_range_that_is_none_is_refused(tmp_path):
    for wrong in ((1.0,), (5.0, 5.0), (3.0, 1.0)):
        with pytest.raises(BadConfig, match=r"folder\.intensity is the value of black and the higher one of white"):
            intensity.declared("folder.intensity", wrong)
    assert intensity.declared("folder.intensity", ()) is None
