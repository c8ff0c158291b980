"""Safe unpacking of an untrusted archive: zip, or tar with gzip, bzip2, xz or no compression.

* Nothing is written outside the folder: absolute paths, ``..``, drives and backslashes are refused. Links within the
  archive become copies; links that leave it and devices are refused, as are names that this system cannot have.
* An archive bomb is stopped while it is unpacked: by compression ratio, number of files and free disk space.
* Files are unpacked into a staging folder first, so a refused archive leaves nothing behind.
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

from iadbe import system
from iadbe.errors import BadConfig, BadData
from iadbe.files.byte_sizes import format_bytes
from iadbe.progress import report

MAX_RATIO = 100  # of unpacked to packed bytes; images hardly compress
ALWAYS_ALLOWED = 64 * 2**20  # unpacked bytes that are allowed at any ratio
MAX_FILES = 2_000_000
MAX_NAME = 200  # bytes of a file or folder name; most disks allow 255, and a suffix may be added
MAX_DEPTH = 20  # nested folders
MAX_HEADER = 2**20  # bytes of a tar header
RESERVED_DISK = 256 * 2**20  # bytes of disk space that stay free
CHUNK = 2**20
UNPACK_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack ``archive`` into ``folder``, replacing files of the same name.

    Raises :class:`BadData` for a damaged or unsafe archive, :class:`BadConfig` where the disk is too full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _staging_folder(folder) as staging:
        budget = _Budget(archive, staging)
        try:
            if zipfile.is_zipfile(archive):
                _unzip(archive, staging, budget)
            else:
                _untar(archive, staging, budget)
        except (*UNPACK_ERRORS, EOFError, ValueError, NotImplementedError) as error:
            what = "is not a zip or tar archive, or is truncated"
            raise BadData(f"{archive} {what}: {error}. Fetch it again.") from error
        except FileNotFoundError as error:  # Windows: a path of more than 259 characters
            raise BadData(
                f"{error.filename} is too long for this system. Give a folder with a shorter path."
            ) from error
        _move(staging, folder)


class _Budget:
    """Counts unpacked bytes and files, and raises where they exceed the limits."""

    def __init__(self, archive: Path, staging: Path) -> None:
        self.archive, self.staging = archive, staging
        self.packed = archive.stat().st_size
        self.bytes = self.files = self.next_disk_check = 0
        self.names: set[str] = set()  # of files

    def add(self, size: int) -> None:
        """Count ``size`` bytes, before they are written."""
        self.bytes += size
        if self.bytes > max(MAX_RATIO * self.packed, ALWAYS_ALLOWED):
            raise BadData(
                f"{self.archive} unpacks to more than {MAX_RATIO} times its size: it looks like an archive bomb. "
                "Nothing was kept."
            )
        if self.bytes >= self.next_disk_check:  # checking the disk for every small file would be slow
            free = shutil.disk_usage(self.staging).free
            if free < RESERVED_DISK + size:
                raise BadConfig(
                    f"{self.staging.parent} has {format_bytes(free)} of free disk space, too little for the archive."
                )
            self.next_disk_check = self.bytes + (free - RESERVED_DISK) // 16

    def count(self) -> None:
        """Count an entry."""
        self.files += 1
        if self.files > MAX_FILES:
            raise BadData(f"{self.archive} holds more than {MAX_FILES} files: it looks like an archive bomb.")

    def check_new(self, name: str) -> None:
        """Raise where another file of the archive has this name up to its case, on a disk that ignores case."""
        if name not in self.names and (self.staging / name).exists():
            raise BadData(
                f"{self.archive} holds two files whose names differ in case only, {name!r} is one of them, and this "
                "disk ignores case. Nothing was kept."
            )
        self.names.add(name)


_LONG_NAME_TYPES = (  # entries that hold the long name of another one
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
)


class _Header(tarfile.TarInfo):
    """A tar entry with limited long names, so that they cannot fill the memory."""

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.size > MAX_HEADER and self.type in _LONG_NAME_TYPES:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(tar)  # type: ignore[misc]


def _untar(archive: Path, staging: Path, budget: _Budget) -> None:
    links: list[tuple[str, str]] = []  # name, target
    with archive.open("rb") as packed, tarfile.open(fileobj=packed, mode="r|*", tarinfo=_Header) as tar:
        for member in tar:
            budget.count()
            budget.add(member.size)
            name = _safe_name(archive, member.name)
            if member.isdir():
                (staging / name).mkdir(parents=True, exist_ok=True)
            elif member.isreg():
                budget.check_new(name)
                source = tar.extractfile(member)
                assert source is not None
                _write(source, staging / name, member.size, archive)
            elif member.issym() or member.islnk():
                links.append((name, _target(archive, member, name)))
            else:
                raise BadData(f"{archive} holds {member.name!r}, which is neither a file, a folder nor a link.")
            report("unpack", packed.tell(), budget.packed)
    for name, target in links:
        if not (staging / target).is_file():
            raise BadData(f"{archive} holds the link {name!r} to {target!r}, which is no file in it.")
        budget.add((staging / target).stat().st_size)
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(staging / target, staging / name)


def _unzip(archive: Path, staging: Path, budget: _Budget) -> None:
    with zipfile.ZipFile(archive) as zipped:
        entries = zipped.infolist()
        total = sum(entry.file_size for entry in entries)
        budget.add(total)
        done = 0
        for entry in entries:
            budget.count()
            name = _safe_name(archive, entry.orig_filename)
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise BadData(f"{archive} holds {name!r}, which is neither a file nor a folder.")
            if entry.flag_bits & 1:
                raise BadData(f"{archive} is encrypted. Unpack it by hand, with its password.")
            if entry.is_dir():
                (staging / name).mkdir(parents=True, exist_ok=True)
            else:
                budget.check_new(name)
                with zipped.open(entry) as source:
                    _write(source, staging / name, entry.file_size, archive)
            done += entry.file_size
            report("unpack", done, total)


def _safe_name(archive: Path, name: str, *, link: bool = False) -> str:
    """Return a normalised name; raise :class:`BadData` where it lies outside the folder, or is too long for disks.

    The target of a link may contain ``..`` as long as it stays inside the folder.
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
        raise BadData(f"{archive} holds {name!r}, which lies outside the folder, so it is unsafe. Nothing was kept.")
    if len(parts) > MAX_DEPTH or any(len(part.encode(errors="replace")) > MAX_NAME for part in parts):
        limits = f"{MAX_NAME} bytes and {MAX_DEPTH} folders"
        raise BadData(f"{archive} holds {name[:60]!r}…, a name longer than {limits}. Nothing was kept.")
    for part in parts:
        if why := system.name_problem(part):
            raise BadData(f"{archive} holds {name[:60]!r}, which cannot be a file here: {why}. Nothing was kept.")
    return "/".join(parts)


def _target(archive: Path, member: tarfile.TarInfo, name: str) -> str:
    """Return the target of a link: hard links are relative to the archive, symbolic links to their own folder."""
    beside = member.issym() and not member.linkname.startswith("/")
    target = f"{Path(name).parent.as_posix()}/{member.linkname}" if beside else member.linkname
    return _safe_name(archive, target, link=True)


def _write(source: IO[bytes], path: Path, size: int, archive: Path) -> None:
    """Write one file and check its size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, CHUNK)
        if file.tell() != size:
            sizes = f"{size} bytes for {path.name!r}, but {file.tell()} were unpacked"
            raise BadData(f"{archive} declares {sizes}. Fetch it again.")


@contextmanager
def _staging_folder(folder: Path) -> Iterator[Path]:
    """Yield a new folder inside ``folder``, which is removed afterwards."""
    staging = folder / f".unpacking-{os.getpid()}"
    system.remove_tree(staging)
    staging.mkdir()
    try:
        yield staging
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise BadData(f"a file and a folder have one name: {error.filename}.") from error
    finally:
        system.remove_tree(staging)


def _move(staging: Path, folder: Path) -> None:
    """Move all files to their final folders."""
    for here, _, names in os.walk(staging):
        there = folder / Path(here).relative_to(staging)
        there.mkdir(parents=True, exist_ok=True)
        for name in names:
            system.replace(Path(here) / name, there / name)
