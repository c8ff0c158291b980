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
        size_text = f"{width}x{height} pixels"
        raise BadData(f"{name} has {size_text}; {policy.pixels / 1e6:g} million are allowed.")
    return ImageHeader(decoding.FORMATS[form], width * height)
