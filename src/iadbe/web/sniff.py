"""Detects an uploaded image's format by its content, never by its name, and limits the size it decodes to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from iadbe.errors import BadData
from iadbe.files import decoding
from iadbe.files.byte_sizes import format_bytes
from iadbe.web.policy import Policy


class ImageHeader(NamedTuple):
    """Format and size of an image."""

    suffix: str  # of a file name
    pixels: int


def check(file: Path | bytes, policy: Policy, name: str = "") -> ImageHeader:
    """Return an image's header. Only the header is read.

    Raises :class:`BadData` where it is not an image, or has more bytes or pixels than the policy allows.
    """
    name = name or (file.name if isinstance(file, Path) else "the image")
    size = file.stat().st_size if isinstance(file, Path) else len(file)
    if size > policy.image:
        raise BadData(f"{name} has {format_bytes(size)}; {format_bytes(policy.image)} are allowed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the policy has its own limit, below
            form, width, height = decoding.probe(file if isinstance(file, Path) else io.BytesIO(file))
    except Image.DecompressionBombError as error:
        raise BadData(f"{name} has too many pixels; {policy.pixels / 1e6:g} million are allowed.") from error
    except Exception as error:  # a decoder may raise any exception on arbitrary bytes
        raise BadData(f"{name} is not an image ({decoding.NAMES}).") from error
    if width * height > policy.pixels:
        raise BadData(too_large(name, f"{width}x{height} pixels", policy))
    return ImageHeader(decoding.FORMATS[form], width * height)


def too_large(name: str, size: str, policy: Policy) -> str:
    """Return the sentence on an image with more pixels than the policy allows."""
    return f"{name} has {size}; {policy.pixels / 1e6:g} million are allowed."


def page_pixels(path: Path, policy: Policy) -> list[int]:
    """Return the pixels of each image of a TIFF, of one more at most than a request may hold; none of other files.

    The pages of a TIFF may have different sizes, and its first one may be a thumbnail. A pixel of many channels counts
    as several of three. A file whose pages cannot be read counts as one of other kinds: reading it raises the error.
    """
    try:
        found = decoding.page_sizes(path, policy.images)
    except BadData:
        return []
    return [max(size.width * size.height, size.bytes // decoding.PIXEL_BYTES) for size in found]
