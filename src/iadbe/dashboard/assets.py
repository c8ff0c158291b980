"""Serves the plotly.js of the installed Python package, compressed and with a long cache lifetime."""

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
CACHE_FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}  # the address contains the version


@cache
def address() -> str:
    """Return the address of plotly.js; empty where Plotly is not installed."""
    try:
        return f"/assets/plotly-{version('plotly')}.min.js" if _file() else ""
    except PackageNotFoundError:
        return ""


@router.get("/assets/{name}")
def asset(name: str, accept_encoding: Annotated[str, Header()] = "") -> Response:
    """Return plotly.js."""
    if not address() or f"/assets/{name}" != address():
        raise UnknownName(f"there is no asset {name!r}.")
    compressed = "gzip" in accept_encoding
    headers = {**CACHE_FOREVER, "Vary": "Accept-Encoding", **({"Content-Encoding": "gzip"} if compressed else {})}
    return Response(_compressed() if compressed else _read(), headers=headers, media_type="text/javascript")


@cache
def _compressed() -> bytes:
    return gzip.compress(_read(), 6, mtime=0)


def _read() -> bytes:
    file = _file()
    return file.read_bytes() if file else b""


def _file() -> Path | None:
    found = importlib.util.find_spec("plotly")  # without importing it
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    return file if file and file.is_file() else None
