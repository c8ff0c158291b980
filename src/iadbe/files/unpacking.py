"""Unpacks an archive that nobody has looked at: zip, or tar with gzip, bzip2, xz or nothing.

Nothing is written outside of the folder: absolute paths, ``..``, drives and backslashes are refused, links that stay
inside become copies, links that lead out and devices are refused. A bomb is stopped while it is unpacked: by how much
more comes out than went in, by the number of files, and by the room that is left. All is unpacked into a folder of its
own first, so what is refused leaves nothing behind.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from iadbe.errors import BadConfig, BadData
from iadbe.progress import report

RATIO = 100  # times the archive's size that may come out; images hardly shrink
FREE = 64 * 2**20  # bytes that may come out whatever the ratio
FILES = 2_000_000
HEADER = 2**20  # bytes; the longest that a header of a tar may be
SPARE = 256 * 2**20  # bytes of the disk that are left alone
CHUNK = 2**20
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack ``archive`` into ``folder``, over what is there. Raises :class:`BadData` saying what is wrong with it."""
    folder.mkdir(parents=True, exist_ok=True)
    with _aside(folder) as place:
        budget = _Budget(archive, place)
        try:
            if zipfile.is_zipfile(archive):
                _unzip(archive, place, budget)
            else:
                _untar(archive, place, budget)
        except (*BROKEN, EOFError, ValueError, NotImplementedError) as error:
            what = "is no archive that can be unpacked, or not whole"
            raise BadData(f"{archive} {what}: {error}. Fetch it again.") from error
        _move(place, folder)


class _Budget:
    """Counts what comes out of an archive and stops it when that is too much."""

    def __init__(self, archive: Path, place: Path) -> None:
        self.archive, self.place = archive, place
        self.packed = archive.stat().st_size
        self.bytes = self.files = self.asked = 0

    def add(self, size: int) -> None:
        """Take note of ``size`` more bytes that are to come out, before they do."""
        self.bytes += size
        if self.bytes > max(RATIO * self.packed, FREE):
            raise BadData(
                f"{self.archive} unpacks to more than {RATIO} times its size: it looks like an archive bomb. "
                "Nothing was kept."
            )
        if self.bytes >= self.asked:  # asking the disk for every small file would take long
            free = shutil.disk_usage(self.place).free
            if free < SPARE + size:
                raise BadConfig(f"{self.place.parent} has {free / 1e9:.2f} GB of room left: too little to unpack into.")
            self.asked = self.bytes + (free - SPARE) // 16

    def count(self) -> None:
        """Take note of one more entry."""
        self.files += 1
        if self.files > FILES:
            raise BadData(f"{self.archive} holds more than {FILES} files: it looks like an archive bomb.")


_LONG = (  # entries that hold another one's long name
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Header(tarfile.TarInfo):
    """A tar's entry, whose long names cannot fill the memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.size > HEADER and self.type in _LONG:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _untar(archive: Path, place: Path, budget: _Budget) -> None:
    links: list[tuple[str, str]] = []  # name, target
    with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r|*", tarinfo=_Header) as tar:
        for member in tar:
            budget.count()
            budget.add(member.size)
            name = _inside(archive, member.name)
            if member.isdir():
                (place / name).mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                source = tar.extractfile(member)
                assert source is not None
                _write(source, place / name, member.size, archive)
            elif member.issym() or member.islnk():
                links.append((name, _target(archive, member, name)))
            else:
                raise BadData(f"{archive} holds {member.name!r}, which is neither a file, a folder nor a link.")
            report("unpack", packed.tell(), budget.packed)
    for name, target in links:
        if not (place / target).is_file():
            raise BadData(f"{archive} holds the link {name!r} to {target!r}, which is no file in it.")
        budget.add((place / target).stat().st_size)
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(place / target, place / name)


def _unzip(archive: Path, place: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.infolist()
        total = sum(entry.file_size for entry in entries)
        budget.add(total)
        done = 0
        for entry in entries:
            budget.count()
            name = _inside(archive, entry.orig_filename)
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadData(f"{archive} holds {name!r}, which is neither a file nor a folder.")
            if entry.flag_bits & 1:
                raise BadData(f"{archive} is encrypted. Unpack it by hand, with its password.")
            if entry.is_dir():
                (place / name).mkdir(parents=True, exist_ok=True)
            else:
                with zipped.open(entry) as source:
                    _write(source, place / name, entry.file_size, archive)
            done += entry.file_size
            report("unpack", done, total)


def _inside(archive: Path, name: str, *, link: bool = False) -> str:
    """Return a name without ``.``; raise :class:`BadData` where it leads out of the folder.

    In a link's target, ``..`` may lead back to a folder above that is still inside.
    """
    parts: list[str] = []
    bad = name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name)
    for part in name.split("/"):
        if part == ".." and link and parts:
            parts.pop()
        elif part == "..":
            bad = True
        elif part not in ("", "."):
            parts.append(part)
    if bad:
        raise BadData(f"{archive} holds {name!r}, which leads out of the folder: it is not safe. Nothing was kept.")
    return "/".join(parts)


def _target(archive: Path, member: tarfile.TarInfo, name: str) -> str:
    """Return which file of the archive a link means: of a hard link, as seen from the top, else from beside it."""
    beside = member.issym() and not member.linkname.startswith("/")
    target = f"{Path(name).parent.as_posix()}/{member.linkname}" if beside else member.linkname
    return _inside(archive, target, link=True)


def _write(source: IO[bytes], path: Path, size: int, archive: Path) -> None:
    """Write one file of the size that was told, not a byte more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        if file.tell() != size:
            told = f"{size} bytes for {path.name!r}, but {file.tell()} came out"
            raise BadData(f"{archive} tells {told}. Fetch it again.")


@contextmanager
def _aside(folder: Path) -> Iterator[Path]:
    """Give a new folder inside of ``folder`` that is gone afterwards, whatever happens."""
    place = folder / f".unpacking-{os.getpid()}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    try:
        yield place
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadData(f"a file and a folder have one name: {error.filename}.") from error
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _move(place: Path, folder: Path) -> None:
    """Move all files to where they belong, folder by folder."""
    for here, _, names in os.walk(place):
        there = folder / Path(here).relative_to(place)
        there.mkdir(parents=True, exist_ok=True)
        for name in names:
            os.replace(Path(here) / name, there / name)
