"""Decodes image files of known formats, chosen by content; deep images keep all their bits.

Only formats on a list are ever opened, so no file can make the image library start an outside program. Images of more
than 8 bits per sample (deep images) become arrays with the file's own values. Files that the library would decode
wrongly or in part are read by ``tifffile`` or refused with the reason.
"""

from __future__ import annotations

import importlib
import logging
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile

from iadbe.errors import BadData, Missing, number_of
from iadbe.files import pages
from iadbe.files.byte_sizes import format_bytes
from iadbe.files.channels import HOW

MAX_PIXELS = 300_000_000  # a larger image is a mistake or an attack: decoding it would take gigabytes
PIXEL_BYTES = 12  # three numbers of single precision; an image of MAX_PIXELS has no more bytes than these
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is below what a line-scan camera delivers

_PLUGINS: list[Any] = [BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin]
_PLUGINS += [Jpeg2KImagePlugin, PpmImagePlugin, TiffImagePlugin, WebPImagePlugin]
try:
    from PIL import AvifImagePlugin

    _PLUGINS.append(AvifImagePlugin)
except ImportError:  # Pillow before 11.3
    pass
_ENDINGS = {
    "PNG": ".png", "JPEG": ".jpg", "MPO": ".jpg", "BMP": ".bmp", "DIB": ".bmp", "TIFF": ".tif", "WEBP": ".webp",
    "GIF": ".gif", "JPEG2000": ".jp2", "PPM": ".pnm", "AVIF": ".avif",
}  # fmt: skip
FORMATS = {name: ending for name, ending in _ENDINGS.items() if name in Image.OPEN}  # Pillow's name -> usual extension
NAMES = "PNG, JPEG, BMP, TIFF, WebP, GIF, JPEG 2000, PNM or AVIF"
_TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ORIENTATION = 0x0112  # the EXIF tag
_ALPHA = (1, 2)  # values of the TIFF tag ExtraSamples
_MULTIPLIED = 1  # colours are multiplied by their opacity already


@dataclass(frozen=True, slots=True)
class Raster:
    """A decoded deep image, or all channels of an image."""

    values: np.ndarray  # (H, W) or (H, W, 3), or (H, W, C) of an image whose channels were all asked for
    bits: int  # of an integer sample, as the header says, without a sign's; 0: floating point
    inverted: bool = False  # the lowest value is white

    def upright(self) -> np.ndarray:
        """Return the values so that the highest is white, turned about the type's range."""
        if not self.inverted:
            return self.values
        return ((2**self.bits - 1 if self.bits else 1.0) - self.values).astype(self.values.dtype)


def open_image(file: Path | IO[bytes]) -> Image.Image:
    """Open an image of a known format, by content, without decoding it. Raises what the image library raises."""
    return Image.open(file, formats=tuple(FORMATS))


def probe(file: Path | IO[bytes]) -> tuple[str, int, int]:
    """Return (format, width, height) of an image from its header. Raises what the image library raises."""
    try:
        with open_image(file) as image:
            return str(image.format), image.width, image.height
    except UnidentifiedImageError:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as opened:
            opened.seek(0)
            if opened.read(4) not in _TIFF_MAGIC:
                raise
            opened.seek(0)
            with _tifffile("an image").TiffFile(opened) as tiff:
                return "TIFF", int(tiff.pages[0].imagewidth), int(tiff.pages[0].imagelength)


def decode(path: Path, *, channels: bool = False) -> Image.Image | Raster:
    """Return the image with its EXIF orientation applied: 8-bit images as Pillow's, deep ones as a :class:`Raster`.

    The path may mean a page of a TIFF (:mod:`iadbe.files.pages`). With ``channels``, a TIFF of several channels comes
    as a :class:`Raster` of all of them. Raises :class:`BadData` that names the file and the reason.
    """
    file, page = pages.split(path)
    try:
        try:
            image = open_image(file)
        except UnidentifiedImageError:
            if not is_tiff(file):
                raise
            return _read_tiff(path, channels)
        with image:
            seek(path, image, page)
            check_size(path, image.width, image.height)
            if isinstance(image, TiffImagePlugin.TiffImageFile) and not _is_plain(image):
                return _read_tiff(path, channels)
            if channels and isinstance(image, TiffImagePlugin.TiffImageFile) and int(image.tag_v2.get(277, 1)) > 1:
                return _read_tiff(path, channels)
            if isinstance(image, ImageFile) and is_deep_png(image):
                values = _oriented(_deep_png(path, image), image.getexif().get(_ORIENTATION, 1))
                return Raster(values, 16)
            if isinstance(image, TiffImagePlugin.TiffImageFile) and image.tag_v2.get(_ORIENTATION, 1) > 4:
                with file.open("rb") as opened:  # some versions of Pillow garble a rotated file that they map to memory
                    image = open_image(opened)
                    seek(path, image, page)
                    image.load()
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                return Raster(np.asarray(image), _bits(image))
            return image
    except (BadData, Missing):
        raise
    except Exception as error:  # a decoder fed with a broken file may raise anything at all
        raise unreadable(path, error) from error


def count_images(path: Path) -> int:
    """Return how many images a file holds, of which only TIFFs may hold several. Reads headers.

    A damaged TIFF without any counts as one, which then cannot be read. Raises :class:`BadData` for a file that cannot
    be read at all.
    """
    if not pages.may_have_pages(path):
        return 1
    count = len(page_sizes(path, pages.MOST))
    if count > pages.MOST:
        raise _too_many(path)
    return count or 1


def page_sizes(path: Path, most: int) -> list[pages.PageSize]:
    """Return the sizes of a TIFF's images, as its headers say, of ``most`` + 1 at most; none of other files.

    Raises :class:`BadData` for a file that cannot be read at all.
    """
    try:
        try:
            with open_image(path) as image:
                if not isinstance(image, TiffImagePlugin.TiffImageFile):
                    return []
                return [pages.size_here(image) for _ in islice(pages.frames(image), most + 1)]
        except UnidentifiedImageError:
            if not is_tiff(path):
                return []
            with _tifffile(str(path)).TiffFile(path) as file:
                return [pages.size_of(page) for page in islice(pages.own(file), most + 1)]
    except Missing:
        raise
    except Exception as error:
        raise unreadable(path, error) from error


def _frames(image: Image.Image) -> list[int]:
    """Return the numbers of a file's frames that are images of their own, not reduced copies of others."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return list(range(getattr(image, "n_frames", 1)))
    found = list(pages.frames(image))
    image.seek(0)
    return found


def seek(path: Path, image: Image.Image, page: int | None) -> None:
    """Go to a page; without one, check that the file holds one image, and go to it."""
    frames = _frames(image)
    if len(frames) > pages.MOST:
        raise _too_many(path)
    if page is None:
        if isinstance(image, MpoImagePlugin.MpoImageFile):  # a camera's JPEG with previews
            return
        if len(frames) != 1:
            raise _several(path, len(frames))
        page = 0
    if page >= len(frames):
        raise _no_page(path, len(frames))
    image.seek(frames[page])


def _no_page(path: Path, count: int) -> BadData:
    return BadData(f"{path} does not exist: the file has {number_of(count, 'page')}, counted from 0.")


def _too_many(path: Path) -> BadData:
    return BadData(
        f"{path} holds more than {pages.MOST} images: too many to be read safely. Save them as several files."
    )


def check_size(path: Path, width: int, height: int) -> None:
    """Raise :class:`BadData` for an image with too many pixels to be decoded safely."""
    if width * height > MAX_PIXELS:
        raise BadData(f"{path} has {width}x{height} pixels: too many to be decoded safely.")


def is_deep_png(image: Image.Image) -> bool:
    """Return whether an opened PNG has 16-bit colour or transparency, which Pillow reduces to 8 bits."""
    rawmode = str(image.tile[0][3]) if isinstance(image, ImageFile) and image.tile else ""
    return image.format == "PNG" and rawmode.endswith(";16B") and not image.mode.startswith("I")


def deep_kind(image: Image.Image) -> str:
    """Return what kind of deep image an opened file is, such as "16-bit RGB", or "" for one of 8 bits."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        tags = image.tag_v2
        bits, samples = max(tags.get(258, (1,))), int(tags.get(277, 1))
        floating, signed = (kind in tags.get(339, (1,)) for kind in (3, 2))
        if bits <= 8 and not signed:
            return ""
        what = {1: "grey", 3: "RGB", 4: "RGBA"}.get(samples, f"{samples} bands")
        return f"floating-point {what}" if floating else f"{bits if bits != 12 else 16}-bit {what}"
    if isinstance(image, ImageFile) and is_deep_png(image):
        return f"16-bit {'grey with transparency' if str(image.tile[0][3]).startswith('LA') else image.mode}"
    return {"F": "floating-point grey", "I": "16-bit grey"}.get(image.mode[:1], "") if image.mode != "1" else ""


def unreadable(path: Path, error: Exception) -> BadData:
    """Return the error to raise for a file that cannot be decoded: missing, empty, of an unknown format, or damaged."""
    file = pages.file_of(path)
    if not file.exists():
        return BadData(f"{file} does not exist.")
    if file.is_file() and file.stat().st_size == 0:
        return BadData(f"{path} is an empty file (0 bytes). Remove it or copy it again.")
    if isinstance(error, UnidentifiedImageError):
        return BadData(f"{path} cannot be read as an image: its content is not {NAMES}. Convert it, or remove it.")
    if isinstance(error, OSError) and error.errno is not None:
        return BadData(f"{path} cannot be read as an image: {error.strerror}.")
    reason = str(error).replace(str(file), "the file").rstrip(".") or type(error).__name__
    return BadData(f"{path} cannot be read as an image: it is damaged or incomplete ({reason}). Copy it again.")


def _several(path: Path, count: int) -> BadData:
    if not count:
        return BadData(f"{path} cannot be read as an image: it is damaged and holds none. Copy it again.")
    own = " or, for folders of your own, read each as an image: --data.pages true" if pages.may_have_pages(path) else ""
    return BadData(f"{path} holds {count} images, and only one per file is used. Save them as separate files{own}.")


def is_tiff(path: Path) -> bool:
    """Return by its first bytes whether a file is a TIFF."""
    with path.open("rb") as file:
        return file.read(4) in _TIFF_MAGIC


def _is_plain(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Return whether Pillow decodes this kind of TIFF rightly and with all its bits."""
    tags = image.tag_v2
    bits, kinds = set(tags.get(258, (1,))), set(tags.get(339, (1,)))
    if max(bits) <= 8:
        return kinds <= {1, 4}  # unsigned, or not declared
    dark_is_zero = int(tags.get(262, 1)) == 1
    one = int(tags.get(277, 1)) == 1 and len(bits) == 1 and dark_is_zero
    return one and ((bits <= {12, 16} and kinds <= {1, 4}) or (bits == {32} and kinds == {3}))


def _bits(image: Image.Image) -> int:
    """Return the bits of an integer sample; 0 for floating-point numbers."""
    if image.mode == "F":
        return 0
    tags = getattr(image, "tag_v2", None)
    return int(max(tags.get(258, (16,)))) if tags else 16  # PNG, JPEG 2000 and PNM: scaled to 16 bits


def _deep_png(path: Path, image: ImageFile) -> np.ndarray:
    """Decode twice, for the high and the low byte of each sample, and composite transparency on black."""
    tile = image.tile[0]
    rawmode = str(tile[3])
    if rawmode == "LA;16B":  # as many bytes as a pixel of RGBA has
        image.tile = [tile._replace(args="RGBA")]
        both = np.asarray(image).astype(np.uint16)
        return _opaque(both[..., 0::2] * 256 + both[..., 1::2], 65535.0)
    with open_image(path) as low:
        assert isinstance(low, ImageFile)
        low.tile = [tile._replace(args=f"{rawmode[:-1]}L")]
        values = np.asarray(low).astype(np.uint16)
    return _opaque(values + np.asarray(image).astype(np.uint16) * 256, 65535.0)


def _opaque(values: np.ndarray, highest: float) -> np.ndarray:
    """Composite (H, W, 2) or (H, W, 4) on black by its last channel, and drop that."""
    if values.ndim < 3 or values.shape[2] not in (2, 4):
        return values
    solid = np.rint(values[..., :-1] * (values[..., -1:] / highest)).astype(values.dtype)
    return solid[..., 0] if solid.shape[2] == 1 else solid


def _oriented(values: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to (H, W) or (H, W, 3)."""
    if orientation in (2, 3):
        values = values[:, ::-1]
    if orientation in (3, 4):
        values = values[::-1]
    if orientation in (5, 7):
        values = np.swapaxes(values if orientation == 5 else values[::-1, ::-1], 0, 1)
    if orientation in (6, 8):
        values = np.rot90(values, 1 if orientation == 8 else -1)
    return np.ascontiguousarray(values)


def _tifffile(name: str) -> Any:
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what is wrong with a file is said in one sentence
    try:
        return importlib.import_module("tifffile")
    except ImportError as error:
        raise Missing(
            f"reading {name} needs the package tifffile, because of its deep or unusual samples: pip install tifffile"
        ) from error


def _tiff_page(path: Path, file: Any) -> Any:
    """Return the page of tifffile's file that a path means."""
    found, number = list(pages.own(file)), pages.split(path)[1]
    if len(found) > pages.MOST:
        raise _too_many(path)
    if number is None and len(found) != 1:
        raise _several(path, len(found))
    if number is not None and number >= len(found):
        raise _no_page(path, len(found))
    return found[number or 0]


def read_tiff_header(path: Path) -> tuple[int, int, str, bool, bool]:
    """Return (height, width, kind, rotated, deep) of a TIFF that only tifffile knows, after its orientation."""
    file = pages.file_of(path)
    with _tifffile(str(file)).TiffFile(file) as opened:
        page = _tiff_page(path, opened)
        height, width = int(page.imagelength), int(page.imagewidth)
        tag = page.tags.get("Orientation")
        orientation = int(tag.value) if tag else 1
        if orientation > 4:
            height, width = width, height
        floating, bits, samples = page.dtype.kind == "f", int(page.bitspersample), int(page.samplesperpixel)
        what = {1: "grey", 3: "RGB"}.get(samples, f"{samples} channels")
        kind = f"floating-point {what}" if floating else f"{bits}-bit {what}"
        return height, width, kind, orientation > 1, floating or bits > 8


def _read_tiff(path: Path, channels: bool = False) -> Raster:
    """Decode a TIFF with tifffile, which keeps all bits of colour and floating-point images, and all channels."""
    file = pages.file_of(path)
    with _tifffile(str(file)).TiffFile(file) as opened:
        page = _tiff_page(path, opened)
        check_size(path, int(page.imagewidth), int(page.imagelength))
        if (size := pages.size_of(page).bytes) > MAX_PIXELS * PIXEL_BYTES:
            raise BadData(f"{path} has {format_bytes(size)} of pixels: too many to be decoded safely.")
        values = np.asarray(page.asarray())
        if page.axes.endswith("YX") and values.ndim == 3:
            values = np.moveaxis(values, 0, 2)  # stored as planes
        if not channels or values.ndim == 2:
            values = _grey_or_rgb(path, values, page)
        elif values.dtype.kind not in "uif" or values.ndim != 3:
            raise BadData(f"{path} holds {values.dtype} numbers of shape {values.shape}, which are no channels.")
        tag = page.tags.get("Orientation")
        values = _oriented(values, int(tag.value) if tag else 1)
        bits = 0 if values.dtype.kind == "f" else int(page.bitspersample) - (values.dtype.kind == "i")
        return Raster(values, bits, inverted=int(page.photometric) == 0)


def _grey_or_rgb(path: Path, values: np.ndarray, page: Any) -> np.ndarray:
    """Return (H, W) or (H, W, 3); raise :class:`BadData` where the bands or numbers have no clear meaning."""
    if values.dtype.kind not in "uif" or values.ndim not in (2, 3):
        raise BadData(f"{path} holds {values.dtype} numbers of shape {values.shape}. Save it as grey or RGB.")
    bands = 1 if values.ndim == 2 else values.shape[2]
    has_alpha = bool(page.extrasamples) and int(page.extrasamples[-1]) in _ALPHA
    if bands not in (1, 3) and not (bands in (2, 4) and has_alpha):
        raise BadData(
            f"{path} has {bands} channels, and which of them are red, green and blue is not known. Choose one or "
            f"three of them, {HOW}."
        )
    if has_alpha and int(page.extrasamples[-1]) == _MULTIPLIED:
        values = values[..., :-1]
    highest = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    values = _opaque(values, highest)
    return values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
