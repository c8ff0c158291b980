import struct
import sys
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from iadbe.errors import BadData, Missing
from iadbe.files import decoding, image_io
from iadbe.types import IntensityRange

RNG = np.random.default_rng(0)


def png16(path, values, colour):
    """Write (H, W, C) uint16 as a PNG of that colour type (0 grey, 2 RGB, 4 grey with alpha, 6 RGBA)."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    return path


def values(*shape, high=65536):
    return RNG.integers(0, high, shape).astype(np.uint16)


def test_16_bit_colour_of_a_png_keeps_all_bits(tmp_path):
    rgb = values(5, 7, 3)
    found = decoding.decode(png16(tmp_path / "a.png", rgb, 2))
    assert found.bits == 16
    assert np.array_equal(found.values, rgb)
    grey = values(5, 7, 1)
    assert np.array_equal(decoding.decode(png16(tmp_path / "g.png", grey, 0)).values, grey[..., 0])


def test_16_bit_transparency_is_composited_on_black(tmp_path):
    rgba = values(5, 7, 4)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 65535
    found = decoding.decode(png16(tmp_path / "a.png", rgba, 6)).values
    assert not found[0].any()
    assert np.array_equal(found[1], rgba[1, :, :3])
    grey = rgba[..., :2].copy()
    grey[..., 1] = 65535
    assert np.array_equal(decoding.decode(png16(tmp_path / "b.png", grey, 4)).values, grey[..., 0])


@pytest.mark.parametrize(
    ("array", "options", "kind"),
    [
        (values(5, 7, 3), {"photometric": "rgb"}, "16-bit RGB"),
        (values(5, 7, 3), {"photometric": "rgb", "planarconfig": "separate"}, "16-bit RGB"),
        (values(5, 7, 3), {"photometric": "rgb", "compression": "zlib"}, "16-bit RGB"),
        (RNG.random((5, 7, 3), np.float32), {"photometric": "rgb"}, "floating-point RGB"),
        (RNG.random((5, 7)), {}, "floating-point grey"),
        (RNG.random((5, 7), np.float32), {"compression": "zlib"}, "floating-point grey"),
        (values(5, 7).astype(np.uint32) * 70000, {}, "32-bit grey"),
        (values(5, 7), {"bigtiff": True}, "16-bit grey"),
    ],
)
def test_deep_tiffs_hold_what_was_written(tmp_path, array, options, kind):
    stored = np.moveaxis(array, 2, 0) if options.get("planarconfig") else array
    tifffile.imwrite(tmp_path / "a.tif", stored, **options)
    found = decoding.decode(tmp_path / "a.tif")
    assert np.array_equal(found.values, array)
    header = image_io.read_header(tmp_path / "a.tif")
    assert (header.height, header.width, header.kind, header.deep) == (5, 7, kind, True)


def test_white_is_zero_is_inverted(tmp_path):
    grey = values(5, 7)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite")
    assert np.array_equal(decoding.decode(tmp_path / "a.tif").upright(), 65535 - grey)


def test_white_is_zero_is_inverted_within_the_range_of_the_data_and_not_within_the_types(tmp_path):
    grey = values(5, 7, high=4096)
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="miniswhite")
    found = image_io.read_rgb(tmp_path / "a.tif", IntensityRange(0, 4095, "declared"))
    assert np.abs(found[..., 0] - (255 - grey / 4095 * 255)).max() <= 0.5


def test_signed_integers_are_scaled_by_the_positive_half_of_their_type(tmp_path):
    for kind in (np.int8, np.int16):
        high = np.iinfo(kind).max
        tifffile.imwrite(tmp_path / "a.tif", np.array([[0, high // 2, high]], kind))
        assert image_io.read_header(tmp_path / "a.tif").deep
        assert image_io.read_rgb(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 127 if kind == np.int16 else 126, 255]


def test_colours_that_are_multiplied_by_their_opacity_are_not_multiplied_again(tmp_path):
    rgba = np.full((5, 7, 4), 30000, np.uint16)
    for kind, shown in (("assocalpha", 30000), ("unassalpha", round(30000 * 30000 / 65535))):
        tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=[kind])
        assert (decoding.decode(tmp_path / "a.tif").values == shown).all(), kind


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_orientation_is_applied_to_deep_images_as_to_others(tmp_path, orientation):
    grey = RNG.integers(0, 256, (5, 7)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for ending, options in (("png", {}), ("tif", {}), ("lzw.tif", {"compression": "tiff_lzw"})):
        Image.fromarray(grey).save(tmp_path / f"a.{ending}", exif=exif, **options)
    tifffile.imwrite(tmp_path / "deep.tif", grey / 255, extratags=[(274, "H", 1, orientation, True)])
    expected = image_io.read_rgb(tmp_path / "a.png")
    for name in ("a.tif", "a.lzw.tif", "deep.tif"):
        assert np.array_equal(image_io.read_rgb(tmp_path / name), expected), name


@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (values(5, 7, 5), {"photometric": "minisblack", "planarconfig": "contig"}, "has 5 channels, and which of them"),
        (values(3, 5, 7), {"photometric": "minisblack"}, "holds 3 images, and only one per file is used"),
        (RNG.random((5, 7)) * 1j, {}, "holds complex128 numbers"),
    ],
)
def test_whole_files_that_cannot_be_used_are_refused_and_not_called_damaged(tmp_path, array, options, said):
    tifffile.imwrite(tmp_path / "a.tif", array, **options)
    with pytest.raises(BadData, match=said) as error:
        decoding.decode(tmp_path / "a.tif")
    assert "damaged" not in str(error.value)
    assert " it" not in str(error.value).replace(" it as", "")


def test_thumbnails_in_a_tiff_are_not_images_of_their_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(values(64, 64))
        file.write(values(16, 16), subfiletype=1)
    assert decoding.decode(tmp_path / "a.tif").values.shape == (64, 64)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.uint32])
def test_a_thumbnail_may_come_before_the_image(tmp_path, kind):
    array = (RNG.random((6, 8)) * 200).astype(kind)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(array[::2, ::2], subfiletype=1)
        file.write(array)
    found = decoding.decode(tmp_path / "a.tif")
    assert np.array_equal(found.values if isinstance(found, decoding.Raster) else np.asarray(found), array)
    assert image_io.size(tmp_path / "a.tif") == (6, 8)
    sizes = decoding.page_sizes(tmp_path / "a.tif", 9)
    assert [(s.width, s.height, s.bytes) for s in sizes] == [(8, 6, array.nbytes)]


def test_few_pixels_of_many_channels_are_too_many(tmp_path, monkeypatch):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((10, 10, 64), np.float32), photometric="minisblack", planarconfig="contig"
    )
    monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
    with pytest.raises(BadData, match=r"25\.6 KB of pixels: too many to be decoded safely"):
        decoding.decode(tmp_path / "a.tif", channels=True)


@pytest.mark.parametrize("layout", ["contig", "separate"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_all_channels_can_be_asked_for(tmp_path, layout, kind):
    array = (RNG.random((5, 7, 6)) * 250).astype(kind)
    stored = array if layout == "contig" else np.moveaxis(array, 2, 0)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="minisblack", planarconfig=layout)
    found = decoding.decode(tmp_path / "a.tif", channels=True)
    assert np.array_equal(found.values, array)
    assert found.bits == {"uint8": 8, "uint16": 16, "float32": 0}[np.dtype(kind).name]
    header = image_io.read_header(tmp_path / "a.tif")
    assert (header.height, header.width) == (5, 7)
    assert header.kind.endswith("6 channels") or header.kind.endswith("6 bands")
    assert header.deep == (kind != np.uint8)


def test_channels_of_other_images_are_grey_or_rgb(tmp_path):
    Image.new("RGBA", (6, 4), (200, 100, 50, 255)).save(tmp_path / "a.png")
    assert image_io.read_channels(tmp_path / "a.png").values[0, 0].tolist() == [200, 100, 50]
    Image.new("L", (6, 4), 9).save(tmp_path / "b.png")
    assert image_io.read_channels(tmp_path / "b.png").values.shape == (4, 6, 1)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32, np.uint32])
def test_a_page_is_an_image_of_its_own(tmp_path, kind):
    stack = (RNG.random((3, 5, 7)) * 200).astype(kind)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for number, page in enumerate(stack):
            file.write(page)
            if number == 0:
                file.write(page[::2, ::2], subfiletype=1)  # a reduced copy, which is no page
    assert decoding.count_images(tmp_path / "a.tif") == 3
    for number, page in enumerate(stack):
        path = tmp_path / f"a.tif#{number:04d}"
        found = decoding.decode(path)
        values = found.values if isinstance(found, decoding.Raster) else np.asarray(found)
        assert np.array_equal(values, page)
        assert image_io.size(path) == (5, 7)
    with pytest.raises(BadData, match=r"a\.tif#0003 does not exist: the file has 3 pages, counted from 0"):
        decoding.decode(tmp_path / "a.tif#0003")
    with pytest.raises(BadData, match=r"b\.tif does not exist"):
        decoding.decode(tmp_path / "b.tif#0000")


def test_an_animation_is_refused(tmp_path):
    frames = [Image.new("L", (8, 8), v) for v in (0, 99, 200)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(BadData, match="holds 3 images"):
        decoding.decode(tmp_path / "a.gif")


def test_without_tifffile_a_deep_tiff_names_the_package(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", values(5, 7, 3), photometric="rgb")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(Missing, match=r"a\.tif needs the package tifffile, .*pip install tifffile"):
        decoding.decode(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "content", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n", b"<svg></svg>", b"\xd7\xcd\xc6\x9a" * 9]
)
def test_a_format_that_is_not_listed_is_never_opened(tmp_path, monkeypatch, content):
    def refuse(*arguments, **options):
        raise AssertionError("an outside program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    monkeypatch.setattr("os.system", refuse)
    (tmp_path / "a.png").write_bytes(content)
    for read in (decoding.decode, image_io.read_rgb, image_io.read_header):
        with pytest.raises(BadData, match="its content is not PNG, JPEG, BMP"):
            read(tmp_path / "a.png")


def test_every_format_on_the_list_is_read_by_its_content(tmp_path):
    assert {"PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "PPM"} <= set(decoding.FORMATS)
    for name in {"PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF", "JPEG2000", "PPM", "AVIF"} & set(decoding.FORMATS):
        Image.new("RGB", (16, 16), (200, 100, 50)).save(tmp_path / "named.png", name)
        read = image_io.read_rgb(tmp_path / "named.png")
        assert np.abs(read.astype(int) - (200, 100, 50)).max() < 12, name


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")  # Pillow's, which the command line does not show
def test_a_tiff_without_a_page_is_an_error_and_libraries_log_nothing(tmp_path, caplog):
    (tmp_path / "a.tif").write_bytes(b"II*\0\xff\xff\xff\xff")
    assert decoding.count_images(tmp_path / "a.tif") == 1  # so that it is read, and not left out
    with pytest.raises(BadData, match=r"a\.tif cannot be read as an image: it is damaged and holds none"):
        image_io.read_rgb(tmp_path / "a.tif")
    assert not caplog.records
