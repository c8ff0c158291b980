import numpy as np
import pytest

from iadbe.data import synthetic_defects


def drawn(pixels, seed):
    rng = np.random.default_rng(seed)
    mask = synthetic_defects.random_region(*pixels.shape[:2], rng)
    return mask, synthetic_defects.blend(pixels, mask, rng)


@pytest.mark.parametrize("grey", [0, 1, 90, 128, 254, 255])
def test_a_defect_is_visible_on_an_image_of_one_colour_and_only_in_its_region(grey):
    pixels = np.full((40, 64, 3), grey, np.uint8)
    for seed in range(25):
        mask, result = drawn(pixels, seed)
        change = np.abs(result.astype(int) - pixels).max(-1)
        assert change[mask].mean() > 8
        assert not change[~mask].any()


def test_a_region_is_never_empty_never_most_of_the_image_and_of_few_pieces():
    from scipy import ndimage

    for seed in range(60):
        mask = synthetic_defects.random_region(50, 70, np.random.default_rng(seed))
        assert 0 < mask.mean() <= 0.15
        assert 1 <= ndimage.label(mask)[1] <= 3


def test_the_seed_decides_and_the_region_needs_no_pixels():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    before = pixels.copy()
    (mask, one), (_, again), (other, _) = drawn(pixels, 1), drawn(pixels, 1), drawn(pixels, 2)
    assert np.array_equal(one, again)
    assert np.array_equal(mask, synthetic_defects.random_region(32, 32, np.random.default_rng(1)))
    assert not np.array_equal(mask, other)
    assert np.array_equal(pixels, before)


def test_a_grey_image_stays_grey():
    pixels = np.repeat(np.random.default_rng(0).integers(0, 256, (32, 32, 1), dtype=np.uint8), 3, axis=2)
    for seed in range(5):
        _, result = drawn(pixels, seed)
        assert (result == result[..., :1]).all()


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (5, 2)])
def test_tiny_images_work(size):
    mask, result = drawn(np.full((*size, 3), 100, np.uint8), 0)
    assert mask.any()
    assert result.shape == (*size, 3)


def test_perlin_noise_is_0_at_the_corners_of_its_grid_and_smooth():
    noise = synthetic_defects.perlin(
        401, 401, 4, 4, np.random.default_rng(0)
    )  # odd: pixel centres meet no corner exactly
    near = noise[[100, 200, 300]][:, [100, 200, 300]]
    assert np.abs(near).max() < 0.02
    assert np.abs(noise).max() > 0.3
    assert np.abs(np.diff(noise, axis=0)).max() < 0.05
    assert noise.dtype == np.float32
