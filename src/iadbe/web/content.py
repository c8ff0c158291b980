"""Looks at what a file is, by its content and never by its name: which image, and how large it would become."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image

from iadbe.errors import BadData
from iadbe.web.rules import Rules

SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif", "WEBP": ".webp", "MPO": ".jpg"}


def check(file: Path | bytes, rules: Rules, name: str = "") -> str:
    """Return the suffix that belongs to an image; :class:`BadData` where it is none, or too large to be decoded.

    Only the header is read.
    """
    name = name or (file.name if isinstance(file, Path) else "the image")
    size = file.stat().st_size if isinstance(file, Path) else len(file)
    if size > rules.image:
        raise BadData(f"{name} has {size / 1e6:.0f} MB; {rules.image / 1e6:.0f} MB are allowed.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a limit below
            opened = Image.open(file if isinstance(file, Path) else io.BytesIO(file), formats=list(SUFFIXES))
    except Image.DecompressionBombError as error:
        raise BadData(f"{name} has too many pixels; {rules.pixels / 1e6:g} million are allowed.") from error
    except Exception as error:  # a decoder fed with anything at all may raise anything at all
        raise BadData(f"{name} is no image (PNG, JPEG, BMP, TIFF or WebP).") from error
    with opened as image:
        if image.width * image.height > rules.pixels:
            told = f"{image.width}x{image.height} pixels; {rules.pixels / 1e6:g} million are allowed"
            raise BadData(f"{name} has {told}.")
        return SUFFIXES[str(image.format)]
