import numpy as np
import pytest
from PIL import Image, ImageDraw

from iadbe.errors import BadData
from iadbe.files import mask_io


def save(path, pixels, **how):
    Image.fromarray(pixels).save(path, **how)
    return path


def squares(*values, dtype=np.uint8, background=0):
    """Return squares of 8x8 pixels with these values, apart from each other, and where any of them is."""
    mask = np.full((64, 64), background, dtype)
    for number, value in enumerate(values):
        row, column = divmod(number, 4)
        mask[4 + 15 * row : 12 + 15 * row, 4 + 15 * column : 12 + 15 * column] = value
    return mask, mask != background


def test_masks_of_every_kind_say_the_same(tmp_path):
    truth = np.zeros((16, 16), bool)
    truth[4:12, 4:12] = True
    soft = np.where(truth, 255, 0).astype(np.uint8)
    soft[4, 4:12] = 130
    soft[3, 4:12] = 120  # an edge, below half
    colours = np.zeros((16, 16, 3), np.uint8)
    colours[truth] = (0, 0, 128)
    colours[4:8, 4:12] = (255, 255, 0)
    see_through = np.full((16, 16, 4), 255, np.uint8)
    see_through[~truth, 3] = 0
    files = {
        "soft": save(tmp_path / "soft.png", soft),
        "jpeg": save(tmp_path / "jpeg.jpg", np.where(truth, 255, 0).astype(np.uint8), quality=95),
        "classes": save(tmp_path / "classes.png", np.where(truth, 3, 0).astype(np.uint8)),
        "16 bit": save(tmp_path / "deep.png", np.where(truth, 65535, 0).astype(np.uint16)),
        "one bit": save(tmp_path / "bit.png", truth),
        "colours": save(tmp_path / "colours.png", colours),
        "transparent": save(tmp_path / "alpha.png", see_through),
    }
    Image.fromarray(colours).quantize(8).save(tmp_path / "palette.png")
    files["palette"] = tmp_path / "palette.png"
    for kind, file in files.items():
        assert np.array_equal(mask_io.read_mask(file), truth), kind


def test_an_empty_mask_is_empty_and_a_limit_can_be_given(tmp_path):
    assert not mask_io.read_mask(save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))).any()
    grey = save(tmp_path / "b.png", np.array([[0, 100, 127, 128, 176]], np.uint8))
    assert mask_io.read_mask(grey, above=127).tolist() == [[False, False, False, True, True]]
    assert mask_io.read_mask(grey).tolist() == [[False, True, True, True, True]]


@pytest.mark.parametrize(
    "values", [(100, 255), (20, 80), (127, 255), (1, 2, 3), (1, 255), (50, 100, 150, 200), tuple(range(10, 160, 10))]
)
def test_labels_are_all_defects_whatever_their_values(tmp_path, values):
    mask, truth = squares(*values)
    found = mask_io.read(save(tmp_path / "a.png", mask))
    assert np.array_equal(found.mask, truth)
    assert found.how.startswith("labels")


def test_16_bit_numbers_of_classes_and_instances_are_labels(tmp_path):
    for values in ((1000, 1001, 40000), tuple(range(1, 17)), tuple(range(500, 8500, 500))):
        mask, truth = squares(*values, dtype=np.uint16)
        assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.png", mask)), truth), values


def test_labels_beside_one_another_and_thin_ones_are_defects(tmp_path):
    mask = np.zeros((64, 64), np.uint8)
    mask[10:40, 10:40] = 100
    mask[20:30, 20:30] = 255  # inside of the other
    mask[50, 5:60] = 100  # a scratch, one pixel wide
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.png", mask)), mask > 0)


def test_an_antialiased_mask_is_cut_at_half(tmp_path):
    large = Image.new("L", (512, 512))
    pen = ImageDraw.Draw(large)
    pen.ellipse((80, 100, 300, 380), fill=255)
    pen.line((350, 60, 480, 470), fill=255, width=24)
    soft = np.asarray(large.resize((64, 64), Image.Resampling.BOX))
    found = mask_io.read(save(tmp_path / "a.png", soft))
    assert len(np.unique(soft)) > 16
    assert np.array_equal(found.mask, soft > 127.5)
    assert found.how == "above half of 255"


def test_a_resized_mask_of_labels_keeps_the_low_ones(tmp_path):
    mask, truth = squares(100, 255)
    soft = np.asarray(Image.fromarray(mask).resize((160, 160), Image.Resampling.BILINEAR))
    found = mask_io.read_mask(save(tmp_path / "a.png", soft))
    hard = np.asarray(Image.fromarray(truth).resize((160, 160), Image.Resampling.NEAREST))
    assert (found != hard).mean() < 0.02


def test_the_noise_of_a_jpeg_is_no_defect_even_in_a_png(tmp_path):
    mask = np.zeros((96, 96), np.uint8)
    mask[30:60, 20:70] = 255
    noisy = save(tmp_path / "a.jpg", mask, quality=60)
    assert np.array_equal(mask_io.read_mask(noisy), mask > 0)
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "b.png", np.asarray(Image.open(noisy)))), mask > 0)


def test_colours_and_palettes_are_labels_and_the_background_is_black_or_the_border(tmp_path):
    colours = np.zeros((32, 32, 3), np.uint8)
    colours[4:9, 4:9] = (0, 0, 20)  # dark, and yet a label
    colours[20:25, 20:25] = (255, 0, 0)
    truth = colours.any(axis=2)
    found = mask_io.read(save(tmp_path / "a.png", colours))
    assert np.array_equal(found.mask, truth)
    assert found.how == "2 colours on black"
    palette = Image.fromarray(truth.astype(np.uint8), "P")
    palette.putpalette([10, 200, 30, 128, 0, 0])
    palette.save(tmp_path / "b.png")
    assert np.array_equal(mask_io.read_mask(tmp_path / "b.png"), truth)


def test_floating_point_labels_are_labels_and_soft_edges_are_cut_at_half(tmp_path):
    for values in ((1.0, 0.25), (1.0, 2.0, 3.0), (300.0, 1000.0), (0.5, 1.0)):
        mask, truth = squares(*values, dtype=np.float32)
        assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.tif", mask)), truth), values
    mask, truth = squares(1.0, 0.25, dtype=np.float32)
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "b.tif", (mask > 0).astype(np.float32))), truth)
    large = Image.new("L", (512, 512))
    ImageDraw.Draw(large).ellipse((80, 100, 300, 380), fill=255)
    soft = np.asarray(large.resize((64, 64), Image.Resampling.BOX)).astype(np.float32) / 255
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "c.tif", soft)), soft > 0.5)


def test_numbers_that_are_not_finite_are_refused_and_not_taken_for_clean(tmp_path):
    mask = squares(1.0, dtype=np.float32)[0]
    mask[0, 0] = np.nan
    with pytest.raises(BadData, match=r"a\.tif holds numbers that are not finite"):
        mask_io.read(save(tmp_path / "a.tif", mask))


def test_without_0_the_lowest_value_is_the_background_and_beside_negative_ones_the_borders(tmp_path):
    for values, background in (((2, 3), 1), ((20, 30), 10), ((2,), 1)):
        mask, truth = squares(*values, background=background)
        assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.png", mask)), truth), values
    for values, background in (((0, 1), -1), ((-1, 1), 0)):
        mask, truth = squares(*values, background=background, dtype=np.float32)
        assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.tif", mask)), truth), values


def test_a_mask_that_only_its_transparency_or_its_palettes_numbers_hold(tmp_path):
    truth = squares(1)[1]
    see_through = np.zeros((64, 64, 4), np.uint8)
    see_through[truth, 3] = 255  # black on transparent
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.png", see_through)), truth)
    grey = Image.fromarray(see_through[..., 2:], "LA")
    grey.save(tmp_path / "b.png")
    assert np.array_equal(mask_io.read_mask(tmp_path / "b.png"), truth)
    numbers = Image.fromarray(truth.astype(np.uint8) * 2, "P")
    numbers.putpalette([0] * 768)  # all entries are black
    numbers.save(tmp_path / "c.png")
    assert np.array_equal(mask_io.read_mask(tmp_path / "c.png"), truth)


def big_squares(*values, channels=()):
    mask = np.zeros((128, 128, *channels), np.uint8)
    truth = np.zeros((128, 128), bool)
    for number, value in enumerate(values):
        mask[20 + 50 * number : 50 + 50 * number, 30:90] = value
        truth[20 + 50 * number : 50 + 50 * number, 30:90] = True
    return mask, truth


@pytest.mark.parametrize("quality", [95, 75, 40, 15])
@pytest.mark.parametrize("ending", ["jpg", "webp"])
@pytest.mark.parametrize("values", [(255,), (100, 255), (255, 80)])
def test_lossy_compression_keeps_labels_and_its_noise_is_no_defect(tmp_path, quality, ending, values):
    mask, truth = big_squares(*values)
    file = save(tmp_path / f"a.{ending}", np.repeat(mask[..., None], 3, axis=2), quality=quality)
    again = save(tmp_path / "again.png", np.asarray(Image.open(file)))  # in a PNG, the noise remains
    for path in (file, again) if ending == "jpg" else (file,):
        found = mask_io.read_mask(path)
        assert (found & truth).sum() / (found | truth).sum() > 0.97, path


@pytest.mark.parametrize("how", ["jpg", "webp", "antialiased"])
def test_colours_with_soft_edges_or_noise_are_told_from_their_background(tmp_path, how):
    colours, truth = big_squares((255, 0, 0), (0, 0, 255), channels=(3,))
    for background in ((0, 0, 0), (255, 255, 255), (0, 90, 0)):
        colours[~truth] = background
        if how == "antialiased":
            image = Image.fromarray(colours).resize((300, 300), Image.Resampling.BICUBIC)
            path = save(tmp_path / "a.png", np.asarray(image))
        else:
            path = save(tmp_path / f"a.{how}", colours, quality=80)
        found = mask_io.read_mask(path)
        want = np.asarray(Image.fromarray(truth).resize(found.shape, Image.Resampling.NEAREST))
        assert (found & want).sum() / (found | want).sum() > 0.9, background


def test_white_is_zero_in_a_mask_and_it_is_told_by_its_values(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    mask, truth = squares(100, 255, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - mask, photometric="miniswhite")
    assert np.array_equal(mask_io.read_mask(tmp_path / "a.tif"), truth)
