"""Pages of a TIFF as images of their own: the path ``stack.tif#0003`` means the fourth page of ``stack.tif``.

Thumbnails and other reduced copies are no pages. Headers are read one after the other, and never more than are needed:
the headers of 280 000 pages fit into 30 MB, and reading them all would take minutes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

MOST = 10_000  # pages of a file that can be read
_REDUCED = 1  # bit of NewSubfileType: a thumbnail or a lower level of a pyramid
_DEPTH = 32997  # the tag ImageDepth

_PAGE = re.compile(r"(?P<file>.+\.tiff?)#(?P<number>[0-9]+)", re.IGNORECASE)


def name(file: str, number: int) -> str:
    """Return the path of a page, counted from 0."""
    return f"{file}#{number:04d}"


def split(path: Path) -> tuple[Path, int | None]:
    """Return (file, page counted from 0); the page is None where the path means a whole file."""
    found = _PAGE.fullmatch(path.name)
    return (path.with_name(found["file"]), int(found["number"])) if found else (path, None)


def file_of(path: Path) -> Path:
    """Return the file of a path that may mean one of its pages."""
    return split(path)[0]


def may_have_pages(path: Path) -> bool:
    """Return by its name whether a file may hold several pages."""
    return path.suffix.lower() in (".tif", ".tiff")


class PageSize(NamedTuple):
    """Size of a page, as its header says it."""

    width: int
    height: int
    bytes: int  # when it is decoded, of all channels


def frames(image: Any) -> Iterator[int]:
    """Go to one page of an opened TIFF of Pillow's after the other, and yield its number of a frame.

    They are :data:`MOST` + 1 frames at most. Pillow's own count of frames reads all headers.
    """
    for number in range(MOST + 1):
        try:
            image.seek(number)
        except EOFError:
            return
        if not int(image.tag_v2.get(254, 0)) & _REDUCED:
            yield number


def size_here(image: Any) -> PageSize:
    """Return the size of the page that an opened TIFF of Pillow's stands at."""
    tags = image.tag_v2
    width, height = int(tags[256]), int(tags[257])  # some versions of Pillow have transposed those of the image
    sample = (int(max(tags.get(258, (1,)))) + 7) // 8
    return PageSize(width, height, width * height * int(tags.get(277, 1)) * int(tags.get(_DEPTH, 1)) * sample)


def own(file: Any) -> Iterator[Any]:
    """Yield the pages of tifffile's file, of the first :data:`MOST` + 1 directories."""
    for page in islice(file.pages, MOST + 1):
        if not int(page.subfiletype) & _REDUCED:
            yield page


def size_of(page: Any) -> PageSize:
    """Return the size of tifffile's page; 0 bytes where it does not know the kind of numbers."""
    count = math.prod(page.shape) * (page.dtype.itemsize if page.dtype is not None else 0)
    return PageSize(int(page.imagewidth), int(page.imagelength), int(count))
