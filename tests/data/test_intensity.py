import numpy as np
import pytest
import tifffile
from PIL import Image

from iadbe.data import intensity
from iadbe.datasets.folder import Folder
from iadbe.errors import BadData
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
    made, samples = dataset(tmp_path, integers(4000))
    made.configure(range=(0.0, 8191.0))
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


def multispectral(count=4, channels=5):
    """Return uint16 images of correlated channels: two sources, mixed, and a little noise."""
    sources = RNG.normal(0, 1, (count, 32, 32, 2)) * [400, 100]
    mixed = sources @ RNG.normal(0, 1, (2, channels)) + 3000 + RNG.normal(0, 2, (count, 32, 32, channels))
    return [image.clip(0, 65535).round().astype(np.uint16) for image in mixed]


def multichannel(root, arrays, channels, **given):
    (root / "good").mkdir(exist_ok=True)
    for number, array in enumerate(arrays):
        tifffile.imwrite(root / f"good/{number}.tif", array, photometric="minisblack", planarconfig="contig")
    made = Folder(str(root), normal_split_ratio=0)
    made.configure(channels=channels, **given)
    made.intensity = intensity.learn(made, made.samples())
    return made, made.samples()


def test_chosen_channels_are_seen_with_the_range_that_they_fill(tmp_path):
    arrays = [np.dstack([RNG.integers(0, high, (16, 16)) for high in (200, 3000, 900, 60000)]).astype(np.uint16)]
    for channels, white in (((0,), 255), ((1,), 4095), ((0, 2, 1), 4095), ((3,), 65535)):
        made, samples = multichannel(tmp_path, arrays, channels)
        assert (made.intensity.low, made.intensity.high) == (0, white)
        expected = np.rint(arrays[0][..., list(channels)] * (255 / white)).astype(np.uint8)
        assert np.array_equal(made.image(samples[0]), np.broadcast_to(expected, (16, 16, 3)))
    made, samples = multichannel(tmp_path, arrays, "mean", range=(0.0, 20000.0))
    assert made.intensity.high == 20000
    grey = np.rint(arrays[0].mean(axis=2) * (255 / 20000)).clip(0, 255)
    assert np.abs(made.image(samples[0])[..., 0] - grey).max() <= 1


def test_8_bit_images_can_be_reduced_to_a_channel(tmp_path):
    (tmp_path / "good").mkdir()
    pixels = RNG.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "good/a.png")
    made = Folder(str(tmp_path), normal_split_ratio=0)
    made.configure(channels=(1,))
    made.intensity = intensity.learn(made, made.samples())
    assert np.array_equal(made.image(made.samples()[0]), np.repeat(pixels[..., 1:2], 3, axis=2))


def test_principal_components_are_those_of_scikit_learn(tmp_path):
    from sklearn.decomposition import PCA

    arrays = multispectral()
    made, samples = multichannel(tmp_path, arrays, "pca")
    reference = PCA(3).fit(np.concatenate([a.reshape(-1, 5) for a in arrays]).astype(np.float64))
    for array, sample in zip(arrays, samples, strict=True):
        scores = reference.transform(array.reshape(-1, 5).astype(np.float64))
        scores *= np.sign(reference.components_[range(3), np.abs(reference.components_).argmax(axis=1)])
        shown = 255 * (0.5 + scores / (8 * np.sqrt(reference.explained_variance_)))
        assert np.abs(made.image(sample).reshape(-1, 3) - shown.clip(0, 255)).max() < 1
    assert made.intensity.source == "learnt from 4 normal images"
    assert made.intensity.projection.source.startswith("principal components of 5 channels (")


def test_components_that_are_not_there_are_constant(tmp_path):
    arrays = [np.dstack([ramp := np.arange(64, dtype=np.uint16).reshape(8, 8), 2 * ramp])]
    made, samples = multichannel(tmp_path, arrays, "pca")
    seen = made.image(samples[0])
    assert (seen[..., 1:] == 128).all()
    assert seen[..., 0].std() > 20


def test_another_number_of_channels_is_refused(tmp_path):
    made, samples = multichannel(tmp_path, multispectral(), "pca")
    other = multispectral(1, 4)[0]
    tifffile.imwrite(tmp_path / "good/0.tif", other, photometric="minisblack", planarconfig="contig")
    with pytest.raises(BadData, match=r"0\.tif does not fit: it has 4 channels, and the images before it had 5"):
        made.image(samples[0])
    with pytest.raises(BadData, match="the images have 4 channels, and channels asks for number 4, counted from 0"):
        multichannel(tmp_path, [other], (4,))
