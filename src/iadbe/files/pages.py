"""Pages of a TIFF as images of their own: the path ``stack.tif#0003`` means the fourth page of ``stack.tif``."""

from __future__ import annotations

import re
from pathlib import Path

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
