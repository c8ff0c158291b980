"""Plotly's JavaScript, as its Python package brings it: one file, sent small and kept by browsers for good."""

from __future__ import annotations

import gzip
import importlib.util
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from starlette.responses import Response

from iadbe.errors import UnknownName

router = APIRouter()
KEPT = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address holds the version


@cache
def address() -> str:
    """Return where pages find Plotly; empty where it is not installed."""
    try:
        return f"/assets/plotly-{version('plotly')}.min.js" if _file() else ""
    except PackageNotFoundError:
        return ""


@router.get("/assets/{name}")
def asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Send Plotly."""
    if not address() or f"/assets/{name}" != address():
        raise UnknownName(f"there is no asset {name!r}.")
    small = "gzip" in accept_encoding
    headers = {**KEPT, "Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if small else {})}
    return Response(_packed() if small else _read(), headers=headers, media_type="text/javascript")


@cache
def _packed() -> bytes:
    return gzip.compress(_read(), 6, mtime=0)


def _read() -> bytes:
    file = _file()
    return file.read_bytes() if file else b""


def _file() -> Path | None:
    found = importlib.util.find_spec("plotly")  # looks, and imports nothing
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    return file if file and file.is_file() else None
