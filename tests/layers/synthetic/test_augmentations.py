import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from iadbe.layers.synthetic import augmentations
from iadbe.layers.synthetic.augmentations import POOL, augmented, rotated


def source(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def pixels():
    """A picture of 8 bits with smooth and rough parts, a dark and a bright side: (H, W, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:40, :60] / 60
    colours = np.stack([0.2 + 0.7 * x, 0.5 + 0.4 * np.sin(9 * y), y * x], 2) + rng.normal(0, 0.05, (40, 60, 3))
    return (colours.clip(0, 1) * 255).round().astype(np.uint8)


def tensor(pixels):
    return torch.from_numpy(np.asarray(pixels).astype(np.float32) / 255).permute(2, 0, 1)


def apart(found, expected):
    """The largest difference in grey levels of 8 bits."""
    return float((found - tensor(expected)).abs().max()) * 255


def test_three_of_ten_are_applied_and_follow_from_the_generator(monkeypatch):
    applied = []
    pool = tuple(lambda image, generator, n=n: applied.append(n) or image for n in range(len(POOL)))
    monkeypatch.setattr(augmentations, "POOL", pool)
    image = torch.rand(200, 3, 4, 4, generator=source())
    assert torch.equal(augmented(image, source(1)), image)
    assert len(POOL) == 10
    groups = [applied[i : i + 3] for i in range(0, 600, 3)]
    assert all(len(set(group)) == 3 for group in groups)
    assert np.bincount(applied, minlength=10).min() > 40
    assert len({tuple(group) for group in groups}) > len({tuple(sorted(group)) for group in groups})


def test_augmented_textures_stay_in_range_and_differ(pixels):
    image = tensor(pixels).expand(30, -1, -1, -1)
    found = augmented(image, source(3))
    assert torch.equal(found, augmented(image, source(3)))
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert torch.isfinite(found).all()
    assert len(torch.unique(found.mean((1, 2, 3)))) > 25
    assert torch.equal(image[0], tensor(pixels))  # the given images are left alone


@pytest.mark.parametrize("change", POOL)
def test_each_takes_flat_black_and_tiny_images(change):
    for image in (torch.zeros(3, 16, 16), torch.ones(3, 16, 16), torch.full((3, 2, 2), 0.5)):
        found = change(image, source())
        assert found.shape == image.shape
        assert torch.isfinite(found).all()


def test_sharpness_is_that_of_pillow(pixels):
    for factor in (0.0, 0.4, 2.5):
        expected = ImageEnhance.Sharpness(Image.fromarray(pixels)).enhance(factor)
        assert apart(augmentations.with_sharpness(tensor(pixels), factor), expected) < 2.6  # of its rounded copy


def test_equalisation_is_that_of_pillow(pixels):
    large = np.tile(pixels, (3, 2, 1))
    assert apart(augmentations.with_flat_histogram(tensor(large)), ImageOps.equalize(Image.fromarray(large))) < 0.01


def test_auto_contrast_is_that_of_pillow(pixels):
    for cutoff in (0, 5, 20):
        expected = ImageOps.autocontrast(Image.fromarray(pixels), cutoff)
        assert apart(augmentations.with_auto_contrast(tensor(pixels), cutoff / 100), expected) < 1.01


def test_posterisation_keeps_the_highest_bits(pixels):
    found = [augmentations.posterised(tensor(pixels), source(s)) for s in range(30)]
    bits = {
        bits
        for image in found
        for bits in range(1, 9)
        if apart(image, ImageOps.posterize(Image.fromarray(pixels), bits)) < 0.01
    }
    assert bits == set(range(1, 9))


def test_solarisation_inverts_the_bright_side_of_about_half_of_the_images(pixels):
    found = [augmentations.solarised(tensor(pixels), source(s)) for s in range(40)]
    changed = [image for image in found if not torch.equal(image, tensor(pixels))]
    assert 10 < len(changed) < 30
    for image in changed:
        level = float(tensor(pixels)[image != tensor(pixels)].min()) * 255
        assert 31.9 < level < 130
        above = tensor(pixels) * 255 >= level - 0.01
        assert torch.equal(image, torch.where(above, 1 - tensor(pixels), tensor(pixels)))


def test_hue_and_saturation_are_those_of_colorsys(pixels):
    some = tensor(pixels[::7, ::7])
    some[:, 0, 0] = 0.4  # grey has no hue
    for hue, saturation in ((0.0, 0.0), (0.15, -0.1), (-0.19, 0.15)):
        found = augmentations.with_hue_and_saturation(some, hue, saturation)
        for y in range(some.shape[1]):
            for x in range(some.shape[2]):
                h, s, v = colorsys.rgb_to_hsv(*some[:, y, x].tolist())
                expected = colorsys.hsv_to_rgb((h + hue) % 1, min(max(s + saturation, 0), 1), v)
                assert found[:, y, x].tolist() == pytest.approx(expected, abs=1e-5)


def test_brightness_and_gamma_stay_within_their_ranges():
    grey = torch.full((3, 4, 4), 0.5)
    found = torch.stack([augmentations.brightness(grey, source(s)).mean() for s in range(300)])
    assert 0.5 * 0.8 - 30 / 255 <= float(found.min()) < 0.35
    assert 0.65 < float(found.max()) <= 0.5 * 1.2 + 30 / 255
    powers = torch.stack([augmentations.gamma(grey, source(s))[:, 0, 0] for s in range(300)]).log() / np.log(0.5)
    assert 0.5 <= float(powers.min()) < 0.55
    assert 1.9 < float(powers.max()) <= 2
    assert float((powers[:, 0] - powers[:, 1]).abs().mean()) > 0.2  # each channel its own


def test_the_negative_is_the_negative(pixels):
    assert torch.equal(augmentations.inverted(tensor(pixels), source()), 1 - tensor(pixels))


def test_rotation_keeps_distances_and_the_centre():
    """A bright dot off the centre stays at its distance, on images that are no squares too."""
    image = torch.zeros(60, 1, 41, 61)
    image[:, 0, 20, 38] = 1.0
    found = rotated(image, 90, source())
    y, x = np.mgrid[:41, :61]
    angles = []
    for one in found[:, 0].numpy():
        cy, cx = (one * y).sum() / one.sum() - 20, (one * x).sum() / one.sum() - 30
        assert np.hypot(cy, cx) == pytest.approx(8, abs=0.5)
        angles.append(np.degrees(np.arctan2(cy, cx)))
    assert min(angles) < -60
    assert max(angles) > 60
    assert np.abs(angles).max() < 92
    assert float(rotated(torch.ones(1, 1, 8, 8), 0, source()).min()) == 1
