"""Reads and writes image files.

Grey images become RGB, palettes are looked up, transparent images are composited on black, 16-bit images are scaled by
their whole range and floating-point ones by 1, 255 or 65535 (never clipped), and the EXIF orientation is applied. Other
images raise :class:`BadData`, which names the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from iadbe.errors import BadData

EXTENSIONS = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")  # in lower case
MAX_PIXELS = 300_000_000  # a larger one is a mistake or an attack: decoding it would take gigabytes
Image.MAX_IMAGE_PIXELS = MAX_PIXELS  # Pillow's own limit is below what a line-scan camera delivers

_TRANSPOSED = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112  # the EXIF tag
_PNG_MARKS = (b"eXIf", b"Raw profile type exif", b"adobe.xmp")  # where a PNG may tell its orientation
_MODE_NAMES = {"L": "grey", "1": "black and white", "P": "palette", "PA": "palette", "RGBA": "transparency"}
_MODE_NAMES |= {"LA": "grey with transparency", "CMYK": "CMYK", "I": "32-bit grey", "F": "floating-point grey"}


@dataclass(frozen=True, slots=True)
class Header:
    """What an image's header says, after a camera's rotation."""

    height: int
    width: int
    kind: str  # "RGB" where nothing is converted, else "grey", "16-bit grey", "palette", "transparency" …
    rotated: bool  # the camera's rotation is applied when it is read


def is_image(path: Path) -> bool:
    """Say by its name whether a file is an image; hidden files are not."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def read_rgb(path: Path) -> np.ndarray:
    """Return an image as (H, W, 3) uint8."""
    image = _open(path)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.repeat(_to_uint8(image, path)[:, :, None], 3, axis=2)
    return np.array(_to_rgb(image, path))


def read_mask(path: Path, above: float | None = None) -> np.ndarray:
    """Return a ground truth as (H, W) bool.

    In a grey mask, defect is what lies above ``above``; by default above half of the largest value (soft edges, masks
    saved as JPEG), or, where the largest value is small, whatever is not 0 (class numbers). In a coloured mask,
    defect is whatever is not black.
    """
    image = _open(path)
    if image.mode in ("1", "L", "I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float32)
    else:
        rgb = np.asarray(_to_rgb(image, path))
        values = rgb.max(axis=2)
        if int((values - rgb.min(axis=2)).max(initial=0)) > 32:
            return values > 32  # the noise of a JPEG stays below
    if above is None:
        top = float(values.max(initial=0))
        above = top / 2 if top > 32 else 0
    return values > above


def read_header(path: Path) -> Header:
    """Read an image's header, without decoding the pixels."""
    try:
        with Image.open(path) as image:
            plain = image.format == "PNG" and not any(mark in path.read_bytes() for mark in _PNG_MARKS)
            rotated = 1 if plain else image.getexif().get(_ORIENTATION, 1)  # of a PNG, this decodes the pixels
            width, height = image.size
            if isinstance(image, TiffImageFile):  # some versions of Pillow have rotated its size already
                width, height = image.tag_v2[256], image.tag_v2[257]
            if rotated in _TRANSPOSED:
                width, height = height, width
            kind = "16-bit grey" if image.mode.startswith("I;16") else _MODE_NAMES.get(image.mode, image.mode)
            if kind in ("RGB", "grey") and "transparency" in image.info:
                kind = "transparency"
            return Header(height, width, kind, rotated not in (0, 1))
    except Exception as error:
        raise _unreadable(path, error) from error


def size(path: Path) -> tuple[int, int]:
    """Return (height, width) from the file's header, after a camera's rotation."""
    found = read_header(path)
    return found.height, found.width


def write(path: Path, pixels: np.ndarray) -> None:
    """Write (H, W, 3) or (H, W) uint8 as an image; the name's extension decides the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def resized(pixels: np.ndarray, height: int, width: int, *, nearest: bool = False) -> np.ndarray:
    """Resize (H, W, 3) uint8, (H, W) bool or (H, W) float32. Bilinear with antialiasing; masks, depth: nearest."""
    if pixels.shape[:2] == (height, width):
        return pixels
    if pixels.dtype == bool:
        return resized(pixels.astype(np.uint8) * 255, height, width, nearest=True) > 127
    nearest = nearest or pixels.dtype == np.float32  # no height is made up between two, and nan stays where it is
    how = Image.Resampling.NEAREST if nearest else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(pixels).resize((width, height), how))


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise BadData(f"{path} has {image.width}x{image.height} pixels: too many to be decoded safely.")
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return image
    except BadData:
        raise
    except Exception as error:  # a decoder fed with a broken file may raise anything at all
        raise _unreadable(path, error) from error


def _to_rgb(image: Image.Image, path: Path) -> Image.Image:
    try:
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
        return image.convert("RGB")
    except ValueError as error:
        raise BadData(f"{path} has colours ({image.mode}) that cannot be converted to RGB. Save it as RGB.") from error


def _unreadable(path: Path, error: Exception) -> BadData:
    if not path.exists():
        return BadData(f"{path} is not there.")
    if path.is_file() and path.stat().st_size == 0:
        return BadData(f"{path} is an empty file (0 bytes). Remove it or copy it again.")
    reason = str(error).rstrip(".").replace(repr(str(path)), "it")
    return BadData(f"{path} cannot be read as an image: {reason}. Remove it or copy it again.")


def _to_uint8(image: Image.Image, path: Path) -> np.ndarray:
    """Scale by the type's range, so that all images of a camera are scaled alike."""
    values = np.asarray(image).astype(np.float32)
    top = float(values.max(initial=0))
    if not np.isfinite(values).all() or float(values.min(initial=0)) < 0:
        raise BadData(
            f"{path} holds numbers below 0 or not finite: their meaning is not clear. Save it as 8 or 16 bit."
        )
    whole = 65535.0 if top <= 65535 else top
    if image.mode == "F" and top <= 255:
        whole = 1.0 if top <= 1 else 255.0
    return np.rint(values * (255 / whole)).astype(np.uint8)
