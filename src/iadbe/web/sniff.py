"""Detects an uploaded image's format by its content, never by its name, and limits the size it decodes to."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

from iadbe.errors import BadData
from iadbe.web.policy import Policy

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp", "MPO": ".jpg"}


def check(file: Path | bytes, policy: Policy, name: str = "") -> str:
    """Return the file name suffix of an image's format. Only the header is read.

    Raises :class:`BadData` where it is not an image, or has more bytes or pixels than the policy allows.
    """
    name = name or (file.name if isinstance(file, Path) else "the image")
    size = file.stat().st_size if isinstance(file, Path) else len(file)
    if size > policy.image:
        raise BadData(f"{name} has {size / 1e6:.0f} MB; {policy.image / 1e6:.0f} MB are allowed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the policy has its own limit, below
            opened = Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=list(SUFFIXES))
    except Image.DecompressionBombError as error:
        raise BadData(f"{name} has too many pixels; {policy.pixels / 1e6:g} million are allowed.") from error
    except Exception as error:  # a decoder may raise any exception on arbitrary bytes
        raise BadData(f"{name} is not an image (PNG, JPEG, BMP, TIFF or WebP).") from error
    with opened as image:
        if image.width * image.height > policy.pixels:
            size_text = f"{image.width}x{image.height} pixels"
            raise BadData(f"{name} has {size_text}; {policy.pixels / 1e6:g} million are allowed.")
        return SUFFIXES[str(image.format)]
