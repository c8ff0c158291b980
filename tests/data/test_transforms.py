from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from drawn_images import Drawn
from iadbe.data.transforms import (
    AT,
    TRANSFORMS,
    TransformedDataset,
    sample_of_id,
    warp,
    with_transform,
    without_transform,
)
from iadbe.dataset import Defect
from iadbe.errors import BadConfig
from iadbe.types import Sample

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (24, 40, 3), dtype=np.uint8)
VALUES = {"blur": 30, "flip": 3, "rotation": 30, "jpeg": 10, "scale": 0.7, "colour": 1.5, "contrast": 0.2}
SMOOTH = np.dstack([np.add.outer(np.arange(64) * 2, np.arange(64)), *[np.full((64, 64), v) for v in (90, 30)]]).astype(
    np.uint8
)


class Masked(Drawn):
    """Every image's mask is where it is bright."""

    root = Path()

    def mask(self, sample):
        assert not sample.transform
        return self.pixels[sample.id][:, :, 0] > 127

    def defects(self, sample):
        return (Defect(self.mask(sample), 0.5),)

    def depth(self, sample):
        return self.pixels[sample.id][:, :, 0].astype(np.float32) / 3


def seen(pixels, name, value):
    dataset = TransformedDataset(Masked([pixels]))
    sample = with_transform(dataset.samples()[0], name, value)
    return dataset.image(sample), dataset.mask(sample), dataset.depth(sample)


def test_an_altered_image_is_one_of_its_own_and_knows_where_it_is_from():
    sample = Sample("metal/3", "metal", "test", "dent", "3.png", "3_mask.png")
    other = with_transform(sample, "rotation", 72.0)
    assert other.id == f"metal/3{AT}rotation=72"
    assert (other.image, other.mask, other.is_anomaly) == (sample.image, sample.mask, True)
    assert without_transform(other) == sample
    assert without_transform(sample) == sample


def test_what_does_not_exist_is_one_sentence():
    sample = Sample("3", "metal", "test", "good", "3.png")
    with pytest.raises(BadConfig, match="Did you mean rotation"):
        with_transform(sample, "rotations", 1)
    with pytest.raises(BadConfig, match="a transform already"):
        with_transform(with_transform(sample, "flip", 1), "flip", 1)


def test_points_move_with_the_image_and_keep_their_coordinates():
    dataset = Masked([PIXELS])
    dataset.focal_length = 1.5
    wrapped = TransformedDataset(dataset)
    sample = dataset.samples()[0]
    np.testing.assert_array_equal(wrapped.points(sample), dataset.points(sample))
    flipped = wrapped.points(with_transform(sample, "flip", 1))
    np.testing.assert_array_equal(flipped, dataset.points(sample)[:, ::-1])


def test_an_unaltered_image_passes_untouched():
    dataset = TransformedDataset(Masked([PIXELS]))
    sample = dataset.samples()[0]
    assert dataset.image(sample) is dataset.dataset.pixels["000"]
    assert dataset.defects(sample)[0].saturation == 0.5


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_change_changes_keeps_the_form_and_is_the_same_each_time(name):
    before = PIXELS.copy()
    first, again = (seen(PIXELS, name, VALUES.get(name, 0.3))[0] for _ in range(2))
    assert first.dtype == np.uint8
    assert first.shape == PIXELS.shape
    assert (first == again).all()
    assert (first != PIXELS).any()
    assert (before == PIXELS).all()


@pytest.mark.parametrize("name", ["brightness", "contrast", "blur", "noise", "jpeg", "colour"])
def test_light_leaves_masks_and_depth_alone(name):
    """open-iad's jitter was transform_image to the mask, too."""
    _, mask, depth = seen(PIXELS, name, VALUES.get(name, 0.3))
    assert (mask == (PIXELS[:, :, 0] > 127)).all()
    assert (depth == PIXELS[:, :, 0].astype(np.float32) / 3).all()


class TestGeometry:
    def test_flips_are_exact(self):
        for which, expected in ((1, PIXELS[:, ::-1]), (2, PIXELS[::-1]), (3, PIXELS[::-1, ::-1])):
            image, mask, depth = seen(PIXELS, "flip", which)
            assert (image == expected).all()
            assert (mask == (expected[:, :, 0] > 127)).all()
            assert (depth == expected[:, :, 0].astype(np.float32) / 3).all()

    def test_a_quarter_turn_is_exact_and_counterclockwise(self):
        square = PIXELS[:, :24]
        assert (seen(square, "rotation", 90)[0] == np.rot90(square)).all()
        assert (seen(PIXELS, "rotation", 180)[0] == PIXELS[::-1, ::-1]).all()

    def test_a_shift_by_whole_pixels_is_exact_and_mirrors_at_the_border(self):
        image, mask, _ = seen(PIXELS, "translation", 0.25)
        assert (image[6:, 10:] == PIXELS[:-6, :-10]).all()
        assert (image[:6, 10:] == PIXELS[5::-1, :-10]).all()
        assert (mask == (image[:, :, 0] > 127)).all()

    def test_half_the_size_shows_all_of_it_in_the_middle(self):
        block = np.zeros((32, 32, 3), np.uint8)
        block[8:24, 8:24] = 255
        _, mask, _ = seen(block, "scale", 0.5)
        assert mask.sum() >= 64
        assert mask[12:20, 12:20].all()
        assert not mask[9, 9:23].any()

    @pytest.mark.parametrize(("name", "value"), [("rotation", 33), ("scale", 0.6), ("perspective", 0.5)])
    def test_the_mask_goes_where_the_image_goes(self, name, value):
        disc = np.hypot(*np.mgrid[-32:32, -40:24]) < 14
        pixels = np.repeat(np.where(disc, 255, 0)[:, :, None], 3, 2).astype(np.uint8)
        image, mask, depth = seen(pixels, name, value)
        bright = image[:, :, 0] > 127
        assert mask.any()
        assert (mask == bright).mean() > 0.99
        assert ((depth > 40) == mask).all()

    def test_nothing_black_comes_in_from_outside(self):
        white = np.full((30, 50, 3), 200, np.uint8)
        for name, value in (("rotation", 45), ("scale", 0.5), ("translation", 0.5), ("perspective", 0.5)):
            assert (seen(white, name, value)[0] == 200).all()

    def test_a_projective_matrix_is_followed_literally(self):
        """Against the definition, pixel by pixel at nearest neighbours."""
        matrix = np.array([[0.8, 0.1, 2], [-0.05, 0.9, 3], [0.001, 0.002, 1]])
        field = np.arange(24 * 40, dtype=np.float32).reshape(24, 40)
        shown = warp(field, matrix)
        expected = np.empty_like(field)
        for row in range(24):
            for column in range(40):
                x, y, z = matrix @ (column + 0.5, row + 0.5, 1)
                expected[row, column] = field[int(np.clip(y / z, 0, 23.5)), int(np.clip(x / z, 0, 39.5))]
        assert (shown == expected).mean() > 0.99


class TestLight:
    def test_brightness_raises_the_largest_channel_and_keeps_the_hue(self):
        dark = np.full((8, 8, 3), (100, 50, 25), np.uint8)
        assert seen(dark, "brightness", 0.2)[0][0, 0].tolist() == [151, 76, 38]
        assert seen(np.zeros_like(dark), "brightness", 0.2)[0][0, 0].tolist() == [51, 51, 51]

    def test_contrast_shrinks_about_the_mean(self):
        halves = np.zeros((8, 8, 3), np.uint8)
        halves[:4] = 200
        assert set(seen(halves, "contrast", 0.5)[0].flatten()) == {50, 150}

    def test_noise_has_its_deviation_and_its_grain_whatever_the_size(self):
        grey = np.full((512, 512, 3), 128, np.uint8)
        noise = seen(grey, "noise", 0.1)[0].astype(int) - 128
        assert noise.std() == pytest.approx(25.5, rel=0.02)
        assert (noise[::2] == noise[1::2]).all()
        assert (noise[:, ::2] == noise[:, 1::2]).all()
        small = seen(grey[:64, :64], "noise", 0.1)[0]
        assert (small[::2] != small[1::2]).any()

    def test_noise_is_another_one_in_every_image(self):
        dataset = TransformedDataset(Masked([np.full((8, 8, 3), 128, np.uint8)] * 2))
        first, second = (dataset.image(with_transform(s, "noise", 0.1)) for s in dataset.samples())
        assert (first != second).any()

    def test_blur_widens_with_the_image(self):
        for side in (64, 256):
            point = np.zeros((side, side, 3), np.uint8)
            point[side // 2 :] = 255
            edge = seen(point, "blur", 8)[0][:, side // 2, 0].astype(float)
            width = ((edge > 0.159 * 255) & (edge < 0.841 * 255)).sum() / 2  # one deviation to each side
            assert width == pytest.approx(8 * side / 256, abs=1)

    def test_a_lower_quality_is_a_worse_image(self):
        worse = [np.abs(seen(SMOOTH, "jpeg", q)[0].astype(int) - SMOOTH).mean() for q in (7, 25, 90)]
        assert worse == sorted(worse, reverse=True)
        assert worse[0] > 2 * worse[2]

    def test_colour_darkens_and_brightens(self):
        means = [seen(SMOOTH, "colour", f)[0].mean() for f in (0.5, 1.0, 1.5)]
        assert means == sorted(means)
        assert (seen(SMOOTH, "colour", 1.0)[0] == SMOOTH).all()


def test_images_of_all_kinds_stand_side_by_side_in_memory():
    """The cache goes by id, and an altered image has its own."""
    from iadbe.data.images import View, read_view

    dataset = TransformedDataset(Masked([PIXELS]))
    plain = dataset.samples()[0]
    digests = [
        read_view(dataset, s, View(16))[1] for s in (plain, *(with_transform(plain, "flip", n) for n in (1, 2, 3)))
    ]
    assert max(Counter(digests).values()) == 1
    assert read_view(dataset, plain, View(16))[1] == digests[0]


def test_an_id_says_which_image_and_how_it_was_changed():
    plain = {
        s.id: s for s in (Sample("a/1", "a", "test", "good", "1.png"), Sample("b@blur=2", "a", "test", "good", "2.png"))
    }
    for sample in plain.values():
        assert sample_of_id(sample.id, plain) is sample
        for name, value in (("rotation", 12.5), ("jpeg", 7)):
            assert sample_of_id(with_transform(sample, name, value).id, plain) == with_transform(sample, name, value)
    assert [sample_of_id(odd, plain) for odd in ("c", "c@blur=2", "a/1@bend=2", "a/1@")] == [None] * 4


def test_a_region_follows_its_image():
    class Counting(Masked):
        def region(self, sample):
            return self.mask(sample)

    dataset = TransformedDataset(Counting([PIXELS]))
    (sample,) = dataset.samples()
    assert (dataset.region(sample) == (PIXELS[:, :, 0] > 127)).all()
    flipped = with_transform(sample, "flip", 1)
    assert (dataset.region(flipped) == (PIXELS[:, ::-1, 0] > 127)).all()
    assert TransformedDataset(Masked([PIXELS])).region(flipped) is None
