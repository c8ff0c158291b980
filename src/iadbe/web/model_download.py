"""A model's folder as a ZIP file, which is made while it is sent: neither memory nor disk holds all of it."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response, StreamingResponse

from iadbe.running.store import folder_name
from iadbe.web.models import folder_of
from iadbe.web.runs import Name
from iadbe.web.state import Server

router = APIRouter(tags=["models"])
CHUNK = 2**20  # bytes that are read at a time


@router.get("/models/{run}/download", response_class=Response, responses={200: {"content": {"application/zip": {}}}})
def download(server: Server, run: Name) -> StreamingResponse:
    """Return a model's folder as a ZIP file. Unpacked, `iadbe predict`, `calibrate` and `export` take it."""
    folder = folder_of(server, run)
    name = folder_name(server.run_cache.run(run).result.spec)
    headers = {"Content-Disposition": f'attachment; filename="{name}.zip"'}
    return StreamingResponse(zipped(folder, name), media_type="application/zip", headers=headers)


def zipped(folder: Path, name: str) -> Iterator[bytes]:
    """Yield a ZIP file of a folder's files, and of those below, under a folder of this name; links are left out."""
    sent = _Chunks()
    with zipfile.ZipFile(sent, "w", zipfile.ZIP_STORED) as archive:
        for file in _files(folder):
            entry = zipfile.ZipInfo(f"{name}/{file.relative_to(folder).as_posix()}")
            entry.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(entry, "w", force_zip64=True) as target:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    yield sent.take()
    yield sent.take()


def _files(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):  # which follows no links
        folders.sort()
        yield from (file for file in (Path(place, name) for name in sorted(names)) if _is_plain(file))


def _is_plain(file: Path) -> bool:
    return not file.is_symlink() and file.is_file()


class _Chunks(io.RawIOBase):
    """Collects what is written to it until it is taken. It cannot be rewound, so sizes follow the content."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: object) -> int:
        """Keep a copy of the bytes."""
        self._parts.append(bytes(data))  # type: ignore[call-overload]
        return len(self._parts[-1])

    def take(self) -> bytes:
        """Return the bytes since the last call."""
        found = b"".join(self._parts)
        self._parts.clear()
        return found
