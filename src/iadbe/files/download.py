"""Fetches the archives of a published dataset: what was there goes on where it stopped, and only what is right is kept.

An archive is written to ``NAME.part`` and gets its name once its size and its checksum are those that are known. A
file of that name, fetched by hand, is checked likewise and used. How far it is is told through :mod:`iadbe.progress`,
in bytes.
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

from iadbe import __version__, registry
from iadbe.errors import BadConfig, BadData, Missing
from iadbe.files import layout
from iadbe.files.unpacking import unpack
from iadbe.progress import report
from iadbe.registry import Card

CHUNK = 2**18
TIMEOUT = 60  # seconds without a single byte
TRIES = 5  # in a row without a single byte
PAUSE = 2.0  # seconds before the second try; twice as long before each further one
DISK = (errno.EACCES, errno.ENOSPC, errno.EROFS, errno.EDQUOT)  # no permission or no room: trying again is no use
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Archive:
    """One file to fetch."""

    url: str
    file: str
    algorithm: str = ""  # of the checksum: "sha256", "md5" or, where none is known, ""
    digest: str = ""


def archives(card: Card) -> tuple[Archive, ...]:
    """Return the archives that a reader's card names."""
    found = []
    for entry in card.get("archives", ()):
        algorithm = next((a for a in ("sha256", "md5") if entry.get(a)), "")
        file = entry.get("file") or unquote(urlsplit(entry["url"]).path.rpartition("/")[2])
        found.append(Archive(entry["url"], file, algorithm, entry.get(algorithm, "")))
    return tuple(found)


def get(name: str, folder: Path, say: Say = print, *, keep: bool = False) -> Path:
    """Fetch and unpack the dataset ``name`` into ``folder``; return the folder to give as ``--data.root``.

    What is being done is told through ``say``, one sentence each. With ``keep``, archives are not removed afterwards.
    Raises :class:`Missing` with what to do by hand where it cannot be fetched.
    """
    card = registry.card("datasets", name)
    if (root := found_in(folder, name)) is not None:
        say(f"{card.get('title') or name} is in {root} already.")
        return root
    wanted = archives(card)
    if not wanted:
        raise Missing(_by_hand(card))
    say(f"{card.get('title')}, licence: {card.get('licence')}. See {card.get('url')}")
    for archive in wanted:
        was_there = (folder / archive.file).is_file()
        path = fetch(archive, folder, say)
        say(f"unpacking {path.name}")
        try:
            unpack(path, folder)
        except BadData:
            if not was_there:
                path.unlink()  # else it would be taken for one fetched by hand
            raise
        if not keep and not was_there:
            path.unlink()
    if (root := found_in(folder, name)) is None:
        raise BadData(f"what was unpacked into {folder} is not {name}: looked for {card.get('looks_like')}.")
    return root


def found_in(folder: Path, name: str) -> Path | None:
    """Return where in ``folder``, or up to two folders below, the reader ``name`` recognises its data."""
    reader: Any = registry.load("datasets", name)
    places = [folder]
    for _ in range(3):
        for place in places:
            if hasattr(reader, "recognise") and place.is_dir() and reader.recognise(place) is not None:
                return place
        places = [place / below for place in places for below in layout.subfolders(place)]
    return None


def fetch(archive: Archive, folder: Path, say: Say = print) -> Path:
    """Bring one archive into ``folder``, whole and checked; return its path."""
    path, part = folder / archive.file, folder / f"{archive.file}.part"
    if path.is_file():
        say(f"{path} is there already, {_sized(path.stat().st_size)}")
        _verify(path, archive, say)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    _Transfer(archive, part, say).run()
    try:
        _verify(part, archive, say)
    except BadData:
        _forget(part)
        raise
    part.replace(path)
    _forget(part)
    return path


class _Transfer:
    """One archive on its way, over as many connections as it takes."""

    def __init__(self, archive: Archive, part: Path, say: Say) -> None:
        self.archive, self.part, self.say = archive, part, say
        self.total = 0  # bytes; 0: not known
        self.told = False

    def run(self) -> None:
        """Go on until all bytes are there; give up after ``TRIES`` connections in a row that brought none."""
        failed, best = 0, self._have()
        while True:
            before = self._have()
            try:
                self._connect()
                return
            except urllib.error.HTTPError as error:
                error.close()
                if error.code == 416 and before and self._is_all(error, before):
                    return
                if error.code == 416 and before:
                    _forget(self.part)  # another file lies there now
                elif error.code < 500 and error.code not in (408, 429):
                    raise Missing(self._advice(f"answers {error.code} {error.reason}")) from error
                reason: Exception = error
            except (OSError, http.client.HTTPException) as error:  # no network, a broken connection, too long a silence
                if getattr(error, "errno", None) in DISK:
                    raise
                if isinstance(error, urllib.error.URLError) and not self.told:  # there is no network, or no such host
                    raise Missing(self._advice(f"cannot be reached ({_short(error)})")) from error
                reason = error
            failed, best = (0, self._have()) if self._have() > best else (failed + 1, best)
            if failed >= TRIES:
                raise Missing(self._advice(f"cannot be reached ({_short(reason)})")) from reason
            time.sleep(PAUSE * 2 ** max(failed - 1, 0))

    def _connect(self) -> None:
        """Ask for what is missing and write it down; return once it is all there."""
        have = self._have()
        headers = {"User-Agent": f"iadbe/{__version__}", "Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if mark := self._mark():
                headers["If-Range"] = mark
        request = urllib.request.Request(_checked(self.archive.url), headers=headers)
        with urllib.request.build_opener(_SafeRedirects).open(request, timeout=TIMEOUT) as answer:
            if answer.headers.get_content_type() == "text/html":
                raise Missing(self._advice("sends a page to read instead of a file"))
            start = _start(answer) if answer.status == 206 else 0
            if start != have:
                if answer.status == 206 and start > have:
                    raise http.client.HTTPException("the server skips a part")
                have = start
            length = answer.headers.get("Content-Length", "")
            self.total = start + int(length) if length.isdigit() else 0
            self._begin(answer, have)
            with self.part.open("r+b" if self.part.exists() else "wb") as file:
                file.truncate(have)
                file.seek(have)
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    report("download", file.tell(), self.total)
        if self.total and self._have() < self.total:
            raise http.client.IncompleteRead(b"", self.total - self._have())

    def _begin(self, answer: Any, have: int) -> None:
        """Say what comes, once, look whether there is room for it, and note which version of the file this is."""
        if not self.told:
            size = _sized(self.total) if self.total else "size not known"
            on = f", going on at {_sized(have)}" if have else ""
            self.say(f"fetching {self.archive.file}, {size}{on}, from {self.archive.url}")
            self.told = True
        if self.total - have > shutil.disk_usage(self.part.parent).free:
            raise BadConfig(f"{self.part.parent} has too little room left for {_sized(self.total - have)}.")
        mark = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        _mark_of(self.part).write_text("" if mark.startswith("W/") else mark, encoding="utf-8")

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.is_file() else 0

    def _mark(self) -> str:
        with suppress(OSError):
            return _mark_of(self.part).read_text(encoding="utf-8")
        return ""

    def _is_all(self, error: urllib.error.HTTPError, have: int) -> bool:
        """Say whether there is nothing left to send: a transfer that ended just before the file got its name."""
        match = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        return match is not None and int(match[1]) == have

    def _advice(self, what: str) -> str:
        have, name = self._have(), self.archive.file
        got = f" {_sized(have)} of it are kept: the same command goes on from there. Or fetch" if have else " Fetch"
        return (
            f"{self.archive.url} {what}.{got} {name} by hand, put it into {self.part.parent}, and say the same "
            "command again: it is checked and unpacked."
        )


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirections, but never from an encrypted connection to an open one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise Missing(f"{req.full_url} leads to {newurl}, which is not encrypted: it is not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _checked(url: str) -> str:
    if urlsplit(url).scheme not in ("http", "https"):
        raise BadConfig(f"{url} is no address of the web: it must begin with https.")
    return url


def _start(answer: Any) -> int:
    """Return the byte at which the part that a server sends begins."""
    match = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    if match is None:
        raise http.client.HTTPException("the server sends a part, but does not tell which")
    return int(match[1])


def _verify(path: Path, archive: Archive, say: Say) -> None:
    """Compare a file with its checksum. Raises :class:`BadData` where they differ."""
    if not archive.digest:
        say(f"no checksum of {archive.file} is known, so it is not checked")
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
            f"{archive.digest}: it is broken or another one. Fetch it again."
        )


def _by_hand(card: Card) -> str:
    what = f"{card.name} cannot be fetched by itself (licence: {card.get('licence') or 'not known'})."
    if card.get("by_hand"):
        return f"{what} {card.get('by_hand')}"
    return f"there is nothing to fetch for {card.name}: it is {card.get('title') or 'drawn, not read'}."


def _mark_of(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")


def _forget(part: Path) -> None:
    part.unlink(missing_ok=True)
    _mark_of(part).unlink(missing_ok=True)


def _sized(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size} bytes"


def _short(error: Exception) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__
