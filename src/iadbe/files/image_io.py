"""Reads and writes image files: RGB of 8 bits, ground-truth masks, headers.

Grey images become RGB, palettes are looked up, transparent images are composited on black, and the EXIF orientation is
applied. Deep images (more than 8 bits) are scaled to 8 bits by a range that belongs to the data set (see
:class:`iadbe.types.IntensityRange`) or else to the sample's type, never to one image. Other images raise
:class:`BadData`, which names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from iadbe.errors import BadData
from iadbe.files import channels, decoding, pages
from iadbe.files.decoding import Raster
from iadbe.types import ChannelProjection, IntensityRange

EXTENSIONS = (  # in lower case; of every format in decoding.FORMATS
    *(".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".bmp", ".dib", ".tif", ".tiff", ".webp", ".gif"),
    *(".jp2", ".j2k", ".jpx", ".pgm", ".ppm", ".pnm", ".pbm", ".pfm", ".avif"),
)
DARK = 32  # grey level, of 255, that a deep image should reach: 12-bit data in 16 bits ends at 16
OUTSIDE = 0.001  # share of pixels that may lie outside a floating-point image's range 0 to 1 where no other is known

_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112  # the EXIF tag
_PNG_MARKS = (b"eXIf", b"Raw profile type exif", b"adobe.xmp")  # chunks in which a PNG may state its orientation
_MODE_NAMES = {"L": "grey", "1": "black and white", "P": "palette", "PA": "palette", "RGBA": "transparency"}
_MODE_NAMES |= {"LA": "grey with transparency", "CMYK": "CMYK"}


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's header says, after a camera's rotation."""

    height: int
    width: int
    kind: str  # "RGB" where nothing is converted, else "grey", "16-bit grey", "palette", "transparency" …
    rotated: bool  # the camera's rotation is applied when it is read
    deep: bool = False  # more than 8 bits per sample


def is_image(path: Path) -> bool:
    """Return by its name whether a file is an image; hidden files are not."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def read_rgb(path: Path, intensity: IntensityRange | None = None) -> np.ndarray:
    """Return an image as (H, W, 3) uint8; ``intensity`` is the range of deep images."""
    return read_with_note(path, intensity)[0]


def read_with_note(path: Path, intensity: IntensityRange | None = None) -> tuple[np.ndarray, str]:
    """Return an image as (H, W, 3) uint8, and a sentence where a deep image does not fit its range, or ""."""
    if intensity is not None and intensity.projection is not None:
        image: Image.Image | Raster = _projected(path, intensity.projection)
    else:
        image = decoding.decode(path)
    if not isinstance(image, Raster):
        return np.array(_to_rgb(image, path)), ""
    scaled = _to_uint8(image, path, intensity)
    note = _range_note(image, scaled, intensity)
    return scaled if scaled.ndim == 3 else np.repeat(scaled[:, :, None], 3, axis=2), note


def read_deep(path: Path) -> np.ndarray | None:
    """Return the values of a deep image, (H, W) or (H, W, 3), as the file holds them; None for one of 8 bits."""
    image = decoding.decode(path)
    return image.values if isinstance(image, Raster) else None


def read_channels(path: Path) -> Raster:
    """Return all channels of an image, (H, W, C), as the file holds them; a palette or transparency comes as RGB."""
    image = decoding.decode(path, channels=True)
    if not isinstance(image, Raster):
        image = Raster(np.asarray(image if image.mode == "L" else _to_rgb(image, path)), 8)
    return image if image.values.ndim == 3 else Raster(image.values[:, :, None], image.bits, image.inverted)


def read_header(path: Path) -> Header:
    """Read an image's header, without decoding the pixels."""
    try:
        file, page = pages.split(path)
        try:
            image = decoding.open_image(file)
        except decoding.UnidentifiedImageError:
            if not decoding.is_tiff(file):
                raise
            return Header(*decoding.read_tiff_header(path))
        with image:
            if page is not None:
                decoding.seek(path, image, page)
            elif isinstance(image, TiffImageFile):
                next(pages.frames(image), None)  # a thumbnail may come before the image
            plain = image.format == "PNG" and not any(mark in path.read_bytes() for mark in _PNG_MARKS)
            orientation = 1 if plain else image.getexif().get(_ORIENTATION, 1)  # of a PNG, this decodes the pixels
            width, height = image.size
            if isinstance(image, TiffImageFile):  # some versions of Pillow have transposed its size already
                width, height = image.tag_v2[256], image.tag_v2[257]
            if orientation in _TRANSPOSED:
                width, height = height, width
            deep = decoding.deep_kind(image)
            kind = deep or _MODE_NAMES.get(image.mode, image.mode)
            if kind in ("RGB", "grey") and "transparency" in image.info:
                kind = "transparency"
            return Header(height, width, kind, orientation not in (0, 1), bool(deep))
    except BadData:
        raise
    except Exception as error:
        raise decoding.unreadable(path, error) from error


def size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header, after a camera's rotation."""
    found = read_header(path)
    return found.height, found.width


def write(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8 as an image; the name's extension decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def resized(pixels: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resize (H, W, 3) uint8, (H, W) bool or (H, W) float32. Bilinear with antialiasing; masks, depth: nearest.

    Bilinear in two steps, the width first: Pillow 13 takes the height first where the height shrinks most, earlier
    versions never do, and the order changes some pixels by one level.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == bool:
        return resized(pixels.astype(np.uint8) * 255, height, width, nearest=True) > 127
    nearest = nearest or pixels.dtype == np.float32  # depth is not interpolated, and nan stays where it is
    image = Image.fromarray(pixels)
    if nearest:
        return np.array(image.resize((width, height), Image.Resampling.NEAREST))
    narrowed = image.resize((width, image.height), Image.Resampling.BILINEAR)
    return np.array(narrowed.resize((width, height), Image.Resampling.BILINEAR))


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    try:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return image if image.mode == "RGB" else image.convert("RGB")
    except ValueError as error:
        raise BadData(f"{path} has colours ({image.mode}) that cannot be converted to RGB. Save it as RGB.") from error


def _projected(path: Path, projection: ChannelProjection) -> Raster:
    found = read_channels(path)
    try:
        return Raster(channels.projected(found.values, projection), found.bits, found.inverted)
    except BadData as error:
        raise BadData(f"{path} does not fit: {error}") from error


def _to_uint8(raster: Raster, path: Path, intensity: IntensityRange | None) -> np.ndarray:
    """Scale to 0 to 255 by the range of the data set, or by the type's; values outside are clipped."""
    values = raster.values.astype(np.float32)
    if not np.isfinite(values).all():
        raise BadData(f"{path} holds numbers that are not finite. Save it as 8 or 16 bit.")
    low, high = (intensity.low, intensity.high) if intensity else (0.0, _highest(raster, path, values))
    centred = intensity is not None and intensity.projection is not None and any(intensity.projection.offset)
    if low == 0 and not centred and float(values.min(initial=0)) < -0.01 * high:
        raise BadData(
            f"{path} holds numbers below 0: their meaning is not clear. Declare their range, such as "
            "--data.range=-1,1, or save it as 8 or 16 bit."
        )
    scaled = np.rint(((values - low) * (255 / (high - low))).clip(0, 255)).astype(np.uint8)
    return 255 - scaled if raster.inverted else scaled


def _range_note(raster: Raster, scaled: np.ndarray, intensity: IntensityRange | None) -> str:
    what = f"{raster.bits}-bit" if raster.bits else "floating-point"
    levels = 255 - scaled if raster.inverted else scaled
    dark = raster.bits != 8 and float((levels >= DARK).mean()) <= OUTSIDE  # but for hot pixels
    if intensity is not None:
        known = f"the range {intensity.low:g} to {intensity.high:g} ({intensity.source})"
        above = float((raster.values > intensity.high).mean())
        if above > OUTSIDE:
            return f"{100 * above:.3g} % of the pixels are above {known} and were clipped."
        own = f"they end at {float(raster.values.max(initial=0)):.4g}"
        return (
            f"{what} images use less than an eighth of {known}: {own}. Do they have another bit depth?" if dark else ""
        )
    if dark:
        return (
            f"{what} images use less than an eighth of their type's range, as 12-bit data in 16 bits does: they look "
            "nearly black. The detector was fitted on 8-bit images and knows no other range."
        )
    return f"{what} images were scaled by their type's range: the detector was fitted on 8-bit images."


def _highest(raster: Raster, path: Path, values: np.ndarray) -> float:
    """Return the highest value of the sample's type; 1 for floating-point numbers, as is their convention."""
    if 0 < raster.bits <= 16:
        return float(2**raster.bits - 1)
    if not raster.bits and float((values > 1.01).mean()) <= OUTSIDE:
        return 1.0
    kind = "floating-point" if not raster.bits else f"{raster.bits}-bit"
    raise BadData(
        f"{path} holds {kind} values up to {float(values.max()):.6g}, and which one is white is not known: no range "
        "was learnt from normal training images of this kind, and none was declared (--data.range 0,4095)."
    )
