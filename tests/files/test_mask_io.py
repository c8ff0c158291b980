import numpy as np
import pytest
from PIL import Image, ImageDraw

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


def test_floating_point_masks(tmp_path):
    mask, truth = squares(1.0, 0.25, dtype=np.float32)
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "a.tif", mask)), mask > 0.5)
    assert np.array_equal(mask_io.read_mask(save(tmp_path / "b.tif", (mask > 0).astype(np.float32))), truth)
