import numpy as np
import pytest
from PIL import Image

from iadbe.errors import BadData
from iadbe.files import decoding, image_io, mask_io
from iadbe.types import IntensityRange

RNG = np.random.default_rng(0)
RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)


def save(path, pixels, **how):
    Image.fromarray(pixels).save(path, **how)
    return path


def test_rgb_comes_back_as_it_was_and_can_be_written_to(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image_io.write(tmp_path / "new/a.png", pixels)
    read = image_io.read_rgb(tmp_path / "new/a.png")
    assert np.array_equal(read, pixels)
    assert read.flags.writeable


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_16_bits_are_scaled_by_their_range_and_not_clipped(tmp_path, ending):
    read = image_io.read_rgb(save(tmp_path / f"a.{ending}", RAMP))
    assert np.array_equal(read[..., 0], np.rint(RAMP / 257).astype(np.uint8))
    assert image_io.read_header(tmp_path / f"a.{ending}").kind == "16-bit grey"
    dark = image_io.read_rgb(save(tmp_path / f"dark.{ending}", RAMP // 16))
    assert dark.max() == 16  # as dark beside its neighbours as it was for the camera


def test_floats_are_read_as_0_to_1_unless_a_range_is_known(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert image_io.read_rgb(save(tmp_path / "a.tif", values)).max() == 255
    with pytest.raises(BadData, match=r"b\.tif holds floating-point values up to 200, and which one is white"):
        image_io.read_rgb(save(tmp_path / "b.tif", values * 200))
    assert image_io.read_rgb(tmp_path / "b.tif", IntensityRange(0, 255)).max() == 200
    with pytest.raises(BadData, match=r"c\.tif holds numbers below 0"):
        image_io.read_rgb(save(tmp_path / "c.tif", values - 0.5))
    assert image_io.read_rgb(tmp_path / "c.tif", IntensityRange(-0.5, 0.5)).max() == 255
    values[0, 0] = np.nan
    with pytest.raises(BadData, match=r"d\.tif holds numbers that are not finite"):
        image_io.read_rgb(save(tmp_path / "d.tif", values))


def test_one_bright_pixel_changes_no_other(tmp_path):
    values = RNG.random((64, 64)).astype(np.float32)
    before = image_io.read_rgb(save(tmp_path / "a.tif", values))
    values[0, 0] = 1.001
    after = image_io.read_rgb(save(tmp_path / "b.tif", values))
    assert (before != after).any(axis=2).sum() <= 1
    assert after[0, 0, 0] == 255


def test_a_range_scales_and_clips_and_says_so(tmp_path):
    twelve = np.linspace(0, 4095, 24).astype(np.uint16).reshape(4, 6)
    read, note = image_io.read_with_note(save(tmp_path / "a.png", twelve), IntensityRange(0, 4095, "declared"))
    assert np.array_equal(read[..., 0], np.rint(twelve * (255 / 4095)).astype(np.uint8))
    assert note == ""
    read, note = image_io.read_with_note(save(tmp_path / "b.png", twelve * 2), IntensityRange(0, 4095, "declared"))
    assert read.max() == 255
    assert "of the pixels are above the range 0 to 4095 (declared) and were clipped" in note
    assert "nearly black" in image_io.read_with_note(tmp_path / "a.png")[1]
    assert "scaled by their type's range" in image_io.read_with_note(save(tmp_path / "c.png", twelve * 16))[1]
    assert image_io.read_with_note(save(tmp_path / "d.png", read))[1] == ""


def test_palette_grey_and_transparency_become_rgb(tmp_path):
    red = np.zeros((4, 4, 3), np.uint8)
    red[:, 2:] = (200, 10, 20)
    Image.fromarray(red).quantize(4).save(tmp_path / "p.png")
    assert np.abs(image_io.read_rgb(tmp_path / "p.png").astype(int) - red).max() <= 1
    alpha = np.dstack([red, np.full((4, 4), 0, np.uint8)])
    alpha[:, 3, 3] = 255
    read = image_io.read_rgb(save(tmp_path / "a.png", alpha))
    assert read[:, :3].max() == 0  # transparent is black
    assert (read[:, 3] == (200, 10, 20)).all()
    assert image_io.read_rgb(save(tmp_path / "g.png", red[..., 0])).shape == (4, 4, 3)
    kinds = [image_io.read_header(tmp_path / f"{n}.png").kind for n in "pag"]
    assert kinds == ["palette", "transparency", "grey"]


@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_a_camera_s_rotation_is_applied_and_known_from_the_header(tmp_path, ending):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, :8] = 255  # bright on the left
    file = save(tmp_path / f"a.{ending}", pixels, exif=exif)
    read = image_io.read_rgb(file)
    assert read.shape[:2] == image_io.size(file) == (16, 8)
    assert read[:6].min() > 200 > 50 > read[10:].max()  # bright on top
    assert image_io.read_header(file).rotated


def test_the_header_of_a_png_is_read_without_its_pixels(tmp_path):
    file = save(tmp_path / "a.png", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file.write_bytes(file.read_bytes()[:2000])
    assert image_io.size(file) == (64, 64)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is an empty file"), (b"hello", "cannot be read as an image"), (None, "does not exist")],
)
def test_files_that_cannot_be_read_are_named_once(tmp_path, content, said):
    file = tmp_path / "bad.png"
    if content is not None:
        file.write_bytes(content)
    for read in (image_io.read_rgb, mask_io.read_mask, image_io.size):
        with pytest.raises(BadData) as error:
            read(file)
        assert said in str(error.value)
        assert str(error.value).count("bad.png") == 1


@pytest.mark.parametrize("ending", ["png", "jpg", "tif", "bmp"])
def test_truncated_files_are_named(tmp_path, ending):
    file = save(tmp_path / f"cut.{ending}", np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    file.write_bytes(file.read_bytes()[:700])
    with pytest.raises(BadData, match="cut"):
        image_io.read_rgb(file)


def test_what_would_take_gigabytes_is_refused(tmp_path, monkeypatch):
    file = save(tmp_path / "a.png", np.zeros((10, 10), np.uint8))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 99)
    with pytest.raises(BadData, match="10x10 pixels"):
        image_io.read_rgb(file)


def test_resizing_keeps_masks_hard():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    small = image_io.resized(mask, 4, 4)
    assert small.dtype == bool
    assert small.sum() == 4
    assert image_io.resized(mask, 8, 8) is mask


def test_other_values_than_those_of_the_range_are_told_not_only_brighter_ones(tmp_path):
    twelve = IntensityRange(0, 4095, "learnt from 4 normal images")
    unit = np.linspace(0, 1, 24, dtype=np.float32).reshape(4, 6)
    note = image_io.read_with_note(save(tmp_path / "a.tif", unit), twelve)[1]
    assert "use less than an eighth of the range 0 to 4095 (learnt from 4 normal images): they end at 1." in note
    note = image_io.read_with_note(save(tmp_path / "b.png", RAMP // 2 + 32768), twelve)[1]
    assert note.startswith("100 % of the pixels are above the range 0 to 4095")


def test_a_hot_pixel_does_not_hide_that_an_image_is_nearly_black(tmp_path):
    twelve = RNG.integers(0, 4096, (64, 64)).astype(np.uint16)
    twelve[0, 0] = 65535
    assert "nearly black" in image_io.read_with_note(save(tmp_path / "a.png", twelve))[1]
