"""Downloads the archives of a published dataset, with resume and checksums.

An archive is written to ``NAME.part`` and renamed once its size and checksum match. An archive of that name that the
user downloaded is checked in the same way and used. Progress in bytes goes to :mod:`iadbe.progress`.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from iadbe import __version__, registry, system
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import layout
from iadbe.files.byte_sizes import format_bytes
from iadbe.files.unpacking import unpack
from iadbe.progress import report
from iadbe.registry import Card

CHUNK = 2**18
TIMEOUT = 60  # seconds without data
TRIES = 5  # consecutive connections without data
PAUSE = 2.0  # seconds before the second attempt; doubled for each further one
DISK_ERRORS = (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # another attempt cannot help
Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to fetch."""

    url: str
    file: str
    algorithm: str = ""  # "sha256", "md5", or "" where no checksum is known
    digest: str = ""


def archives(card: Card) -> tuple[Archive, ...]:
    """Return the archives on a dataset's card."""
    found = []
    for entry in card.get("archives", ()):
        algorithm = next((a for a in ("sha256", "md5") if entry.get(a)), "")
        file = entry.get("file") or unquote(urlsplit(entry["url"]).path.rpartition("/")[2])
        found.append(Archive(entry["url"], file, algorithm, entry.get(algorithm, "")))
    return tuple(found)


def get(name: str, folder: Path, log: Log = print, *, keep: bool = False) -> Path:
    """Download and unpack the dataset ``name`` into ``folder``; return the folder for ``--data.root``.

    Steps are reported to ``log``, one sentence each. With ``keep``, archives are not removed afterwards. Raises
    :class:`Missing` with instructions where the dataset cannot be downloaded.
    """
    card = registry.card("datasets", name)
    if (root := locate(folder, name)) is not None:
        log(f"{card.get('title') or name} is in {root} already.")
        return root
    wanted = archives(card)
    if not wanted:
        raise Missing(_manual_instructions(card))
    log(f"{card.get('title')}, licence: {card.get('licence')}. See {card.get('url')}")
    for archive in wanted:
        was_there = (folder / archive.file).is_file()
        path = fetch(archive, folder, log)
        log(f"unpacking {path.name}")
        try:
            unpack(path, folder)
        except BadData:
            if not was_there:
                system.remove(path)  # else it would be taken for the user's own download
            raise
        if not keep and not was_there:
            system.remove(path)
    if (root := locate(folder, name)) is None:
        raise BadData(f"what was unpacked into {folder} is not {name}: looked for {card.get('layout_description')}.")
    return root


def locate(folder: Path, name: str) -> Path | None:
    """Return ``folder``, or a folder up to two levels below, that the reader ``name`` recognises; or None."""
    reader: Any = registry.load("datasets", name)
    places = [folder]
    for _ in range(3):
        for place in places:
            if hasattr(reader, "recognise") and place.is_dir() and reader.recognise(place) is not None:
                return place
        places = [place / below for place in places for below in layout.subfolders(place)]
    return None


def fetch(archive: Archive, folder: Path, log: Log = print) -> Path:
    """Download one archive into ``folder`` and verify it; return its path."""
    path, part = folder / archive.file, folder / f"{archive.file}.part"
    if path.is_file():
        log(f"{path} is there already, {format_bytes(path.stat().st_size)}")
        _verify(path, archive, log)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    _Transfer(archive, part, log).run()
    try:
        _verify(part, archive, log)
    except BadData:
        _remove_partial(part)
        raise
    system.replace(part, path)
    _remove_partial(part)
    return path


class _Transfer:
    """The download of one archive, over several connections if needed."""

    def __init__(self, archive: Archive, part: Path, log: Log) -> None:
        self.archive, self.part, self.log = archive, part, log
        self.total = 0  # bytes; 0: unknown
        self.announced = False

    def run(self) -> None:
        """Download all bytes; give up after ``TRIES`` consecutive connections without data."""
        failed, best = 0, self._bytes_done()
        while True:
            before = self._bytes_done()
            try:
                self._connect()
                return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and before and self._is_complete(error, before):
                    return
                if error.code == 416 and before:
                    _remove_partial(self.part)  # the file on the server has changed
                elif error.code < 500 and error.code not in (408, 429):
                    raise Missing(self._advice(f"answers {error.code} {error.reason}")) from error
                reason: Exception = error
            except (OSError, http.client.HTTPException) as error:  # no network, a broken connection, a timeout
                if getattr(error, "errno", None) in DISK_ERRORS:
                    raise
                if isinstance(error, urllib.error.URLError) and not self.announced:  # no network or an unknown host
                    raise Missing(self._advice(f"cannot be reached ({_reason(error)})")) from error
                reason = error
            failed, best = (0, self._bytes_done()) if self._bytes_done() > best else (failed + 1, best)
            if failed >= TRIES:
                raise Missing(self._advice(f"cannot be reached ({_reason(reason)})")) from reason
            time.sleep(PAUSE * 2 ** max(failed - 1, 0))

    def _connect(self) -> None:
        """Request the missing bytes and write them; return when the file is complete."""
        have = self._bytes_done()
        headers = {"User-Agent": f"iadbe/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if version := self._version():
                headers["If-Range"] = version
        request = urllib.request.Request(_checked(self.archive.url), headers=headers)
        with urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise Missing(self._advice("sends a web page instead of a file"))
            start = _start(answer) if answer.status == 206 else 0
            if start != have:
                if answer.status == 206 and start > have:
                    raise http.client.HTTPException("the server skips a part")
                have = start
            length = answer.headers.get("Content-Length", "")
            self.total = start + int(length) if length.isdigit() else 0
            self._announce(answer, have)
            with self.part.open("r+b" if self.part.exists() else "wb") as file:
                file.truncate(have)
                file.seek(have)
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    report("download", file.tell(), self.total)
        if self.total and self._bytes_done() < self.total:
            raise http.client.IncompleteRead(b"", self.total - self._bytes_done())

    def _announce(self, answer: Any, have: int) -> None:
        """Report the download once, check the free disk space and store the version of the file."""
        if not self.announced:
            size = format_bytes(self.total) if self.total else "unknown size"
            on = f", going on at {format_bytes(have)}" if have else ""
            self.log(f"fetching {self.archive.file}, {size}{on}, from {self.archive.url}")
            self.announced = True
        if self.total - have > shutil.disk_usage(self.part.parent).free:
            raise BadConfig(f"{self.part.parent} has too little free disk space for {format_bytes(self.total - have)}.")
        version = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        _version_file(self.part).write_text("" if version.startswith("W/") else version, encoding="utf-8")

    def _bytes_done(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _version(self) -> str:
        with suppress(OSError):
            return _version_file(self.part).read_text(encoding="utf-8")
        return ""

    def _is_complete(self, error: urllib.error.HTTPError, have: int) -> bool:
        """Return whether the file is complete: a transfer that stopped just before the file was renamed."""
        match = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return match is not None and int(match[1]) == have

    def _advice(self, what: str) -> str:
        have, name = self._bytes_done(), self.archive.file
        got = (
            f" {format_bytes(have)} of it are kept: the same command goes on from there. Or fetch" if have else " Fetch"
        )
        return (
            f"{self.archive.url} {what}.{got} {name} by hand, put it into {self.part.parent}, and run the same "
            "command again: it is checked and unpacked."
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, except from https to an unencrypted connection."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise Missing(f"{req.full_url} leads to {newurl}, which is not encrypted: it is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadConfig(f"{url} is not a web address: it must begin with https.")
    return url


def _start(answer: Any) -> int:
    """Return the first byte of the range that a server sends."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None:
        raise http.client.HTTPException("the server sends a range without its position")
    return int(match[1])


def _verify(path: Path, archive: Archive, log: Log) -> None:
    """Compare a file with its checksum. Raises :class:`BadData` where they differ."""
    if not archive.digest:
        log(f"no checksum of {archive.file} is known, so it is not checked")
        return
    sha, done, total = hashlib.new(archive.algorithm), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            sha.update(chunk)
            done += len(chunk)
            report("check", done, total)
    if sha.hexdigest() != archive.digest:
        raise BadData(
            f"{archive.file} has the {archive.algorithm} {sha.hexdigest()}, but that of the published file is "
            f"{archive.digest}: it is damaged or another file. Fetch it again."
        )


def _manual_instructions(card: Card) -> str:
    what = f"{card.name} cannot be downloaded automatically (licence: {card.get('licence') or 'unknown'})."
    if card.get("manual_download"):
        return f"{what} {card.get('manual_download')}"
    return f"there is nothing to fetch for {card.name}: it is {card.get('title') or 'rendered, not read'}."


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _remove_partial(part: Path) -> None:
    system.remove(part)
    system.remove(_version_file(part))


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
