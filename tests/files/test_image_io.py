import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from iadbe.errors import BadData
from iadbe.files import image_io

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


def test_16_bit_colour_keeps_its_range(tmp_path):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + np.repeat(row, 3).astype(">u2").tobytes() for row in RAMP)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 6, 4, 16, 2, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    assert np.abs(image_io.read_rgb(tmp_path / "a.png")[..., 0] - RAMP / 257).max() <= 1


def test_floats_are_scaled_and_numbers_without_meaning_are_refused(tmp_path):
    values = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert image_io.read_rgb(save(tmp_path / "a.tif", values)).max() == 255
    assert image_io.read_rgb(save(tmp_path / "b.tif", values * 200)).max() == 200
    with pytest.raises(BadData, match=r"c\.tif holds numbers below 0"):
        image_io.read_rgb(save(tmp_path / "c.tif", values - 0.5))


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
    [(b"", "is an empty file"), (b"hello", "cannot be read as an image"), (None, "is not there")],
)
def test_files_that_cannot_be_read_are_named_once(tmp_path, content, said):
    file = tmp_path / "bad.png"
    if content is not None:
        file.write_bytes(content)
    for read in (image_io.read_rgb, image_io.read_mask, image_io.size):
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
    monkeypatch.setattr(image_io, "MAX_PIXELS", 99)
    with pytest.raises(BadData, match="10x10 pixels"):
        image_io.read_rgb(file)


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
        assert np.array_equal(image_io.read_mask(file), truth), kind


def test_an_empty_mask_is_empty_and_a_limit_can_be_given(tmp_path):
    assert not image_io.read_mask(save(tmp_path / "a.png", np.zeros((4, 4), np.uint8))).any()
    grey = save(tmp_path / "b.png", np.array([[0, 100, 127, 128, 176]], np.uint8))
    assert image_io.read_mask(grey, above=127).tolist() == [[False, False, False, True, True]]
    assert image_io.read_mask(grey).tolist() == [[False, True, True, True, True]]


def test_resizing_keeps_masks_hard():
    mask = np.zeros((8, 8), bool)
    mask[2:6, 2:6] = True
    small = image_io.resized(mask, 4, 4)
    assert small.dtype == bool
    assert small.sum() == 4
    assert image_io.resized(mask, 8, 8) is mask
