"""The feature store: features of a frozen backbone, computed once per image and kept on disk.

A row holds one layer's features of one image, at ``<weights>/<layer>/<digest of the pixels in the view>.npy``;
``<weights>`` names the fingerprint of the weights, the network and the kind of device. The address contains all that
the features depend on. So detectors, epochs, seeds, settings and processes share rows, and rows never go stale.

Detectors do not know of the store; :class:`iadbe.networks.backbone.Backbone` uses the one that :func:`using` has
opened. A row is written to a temporary file, flushed to the disk, and renamed; two processes that write the same row
write the same bytes.

A row is a file of NumPy's format (float32), followed by its address and a checksum (CRC-32) of everything before. A row
that is damaged, cut short, of another type or shape, or of another address is not used: it is computed again. The same
holds for rows of older versions, which have no checksum. The file ``tally`` has a line for each use: how many images a
backbone computed, how many the store had, and how many rows were rejected.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import struct
import tempfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from iadbe import system
from iadbe.cache import cache_folder
from iadbe.types import Options

BUDGET_BYTES = 20 * 2**30
SCAN_INTERVAL = 512  # rows written between two scans for what other processes have added
STALE_SECONDS = 3600  # after which an unfinished row has no writer any more
USAGE_FILE = "tally"
HEADER_BYTES = 128  # of a file of NumPy's format
HEADER = re.compile(
    rb"\x93NUMPY\x01\x00v\x00\{'descr': '<f4', 'fortran_order': False, 'shape': \((\d+), (\d+), (\d+)\), \} *\n"
)
SYNC_THREADS = 8  # the disk flushes several files in the time of one


@dataclass
class Counters:
    """How many images a backbone computed, how many the store had, and how many rows were rejected."""

    computed: int = 0
    stored: int = 0
    rejected: int = 0


class FeatureStore:
    """Rows of features in a folder, up to a budget in bytes; the least recently used rows are removed first."""

    def __init__(self, root: Path, budget: int = BUDGET_BYTES) -> None:
        self.root = Path(root)
        self.budget = budget
        self._bytes: int | None = None  # known after the first scan
        self._written = 0

    def get(self, weights: str, layer: int, key: str, out: np.ndarray | None = None) -> np.ndarray | None:
        """Return a row (C, h, w) float32, or None if there is none that is whole.

        Args:
            weights: name of the network and its weights
            layer: number of the layer
            key: digest of the image
            out: where to put the row, (C, h, w) float32, contiguous; a row of another shape is rejected
        """
        path = self._path(weights, layer, key)
        try:
            with open(path, "rb", buffering=0) as file:
                row = _read(file, _trailer(weights, layer, key), out)
        except OSError:
            return None
        if row is None:
            current()[1].rejected += 1
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a read-only store is fine
            os.utime(path)  # marks the row as used
        return row

    def put(self, weights: str, layer: int, key: str, row: np.ndarray) -> None:
        """Keep a row (C, h, w); see :meth:`put_all`."""
        self.put_all(weights, [(layer, key, row)])

    def put_all(self, weights: str, rows: Iterable[tuple[int, str, np.ndarray]]) -> None:
        """Keep rows, given as (layer, key, features (C, h, w)). With a full disk nothing is kept, without an error."""
        written: list[tuple[IO[bytes], Path]] = []
        size = 0
        try:
            for layer, key, row in rows:
                written.append(self._write(weights, layer, key, row))
                size += written[-1][0].tell()
            _publish(written)
        except OSError:
            return
        finally:
            for file, _ in written:
                file.close()
                with suppress(OSError):
                    Path(file.name).unlink(missing_ok=True)
        before, self._written = self._written, self._written + len(written)
        if self._bytes is None or before // SCAN_INTERVAL != self._written // SCAN_INTERVAL:
            self._sweep()
            self._bytes = self.size()
        else:
            self._bytes += size
        if self._bytes > self.budget:
            self._evict()

    def _write(self, weights: str, layer: int, key: str, row: np.ndarray) -> tuple[IO[bytes], Path]:
        """Write a row to a temporary file, which is returned open, with the path that it is to have."""
        path = self._path(weights, layer, key)
        row = np.ascontiguousarray(row, dtype="<f4")
        path.parent.mkdir(parents=True, exist_ok=True)
        file = tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False)  # noqa: SIM115
        try:
            header, trailer = _header(row.shape), _trailer(weights, layer, key)
            for part in (header, row.data.cast("B"), trailer, _checksum(header, row, trailer)):
                file.write(part)
            file.flush()
        except BaseException as error:
            file.close()
            if isinstance(error, OSError):
                Path(file.name).unlink(missing_ok=True)
            raise
        return file, path

    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(size for _, size in self.networks().values())

    def networks(self) -> dict[str, tuple[int, int]]:
        """Return the number of rows and bytes on disk of each network, by the name that ``Backbone`` gives it."""
        found: dict[str, tuple[int, int]] = {}
        for row in self._rows():
            with suppress(FileNotFoundError):  # another process evicts
                size = row.stat().st_size
                rows, total = found.get(name := row.parts[-3], (0, 0))
                found[name] = (rows + 1, total + size)
        return found

    def record(self, counters: Counters) -> None:
        """Append the counters of one use to the usage; short lines that several processes append do not mix."""
        if counters.computed or counters.stored:
            with suppress(OSError), open(self.root / USAGE_FILE, "ab", buffering=0) as file:
                file.write(f"{counters.computed} {counters.stored} {counters.rejected}\n".encode())

    def usage(self) -> Counters:
        """Return the sum of the counters of all uses since the store was last cleared."""
        total = Counters()
        with suppress(OSError):
            for line in (self.root / USAGE_FILE).read_bytes().splitlines():
                if found := re.fullmatch(
                    rb"(\d{1,18}) (\d{1,18})(?: (\d{1,18}))?", line
                ):  # a full disk cuts lines short
                    total.computed += int(found[1])
                    total.stored += int(found[2])
                    total.rejected += int(found[3] or 0)
        return total

    def clear(self) -> None:
        """Remove all rows and the counters of their usage."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._bytes = None

    def _path(self, weights: str, layer: int, key: str) -> Path:
        return self.root / weights / str(layer) / f"{key}.npy"

    def _rows(self) -> Iterator[Path]:
        return self.root.glob("*/*/*.npy") if self.root.is_dir() else iter(())

    def _sweep(self) -> None:
        """Remove temporary files of killed writers; a running writer needs seconds, not an hour."""
        for part in self.root.glob("*/*/*.part"):
            with suppress(OSError):
                if time.time() - part.stat().st_mtime > STALE_SECONDS:
                    part.unlink()

    def _evict(self) -> None:
        """Remove the oldest rows until a tenth of the budget is free."""
        found = []
        for row in self._rows():
            with suppress(FileNotFoundError):  # another process evicts too
                status = row.stat()
                found.append((status.st_mtime, status.st_size, row))
        total = sum(size for _, size, _ in found)
        for _, size, row in sorted(found, key=lambda entry: entry[0]):
            if total <= 0.9 * self.budget:
                break
            with suppress(PermissionError):  # Windows: another process reads it
                row.unlink(missing_ok=True)
                total -= size
        self._bytes = total


def _publish(written: Sequence[tuple[IO[bytes], Path]]) -> None:
    """Flush temporary files to the disk, so that a crash of the machine leaves no torn row, and rename them."""
    files = [file.fileno() for file, _ in written]
    if len(files) > 1:
        with ThreadPoolExecutor(SYNC_THREADS, "feature-store") as pool:
            list(pool.map(os.fsync, files))
    else:
        os.fsync(files[0])
    for file, path in written:
        file.close()
        system.replace(file.name, path)


def _header(shape: tuple[int, ...]) -> bytes:
    """Return the header of NumPy's format, version 1.0, for float32 of this shape."""
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10) + text.ljust(HEADER_BYTES - 11) + b"\n"


def _trailer(weights: str, layer: int, key: str) -> bytes:
    """Return the address of a row, as it stands behind the features."""
    return f"iadbe {weights}/{layer}/{key}\n".encode()


def _checksum(header: bytes, row: np.ndarray, trailer: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(trailer, zlib.crc32(row.data.cast("B"), zlib.crc32(header))))


def _read(file: IO[bytes], trailer: bytes, out: np.ndarray | None) -> np.ndarray | None:
    """Return the row (C, h, w) of a file, in ``out`` if that is given; None if anything about it is wrong."""
    header = file.read(HEADER_BYTES)
    if not (found := HEADER.fullmatch(header)):
        return None
    shape = tuple(int(side) for side in found.groups())
    rest = len(trailer) + 4
    if out is None:
        if os.fstat(file.fileno()).st_size != HEADER_BYTES + 4 * math.prod(shape) + rest:
            return None
        out = np.empty(shape, np.float32)
    elif out.shape != shape:
        return None
    if file.readinto(out.data.cast("B")) != out.nbytes:  # type: ignore[attr-defined]
        return None
    return out if file.read(rest + 1) == trailer + _checksum(header, out, trailer) else None


_current: ContextVar[tuple[FeatureStore | None, Counters] | None] = ContextVar("feature_store", default=None)


@contextmanager
def using(store: FeatureStore | None) -> Iterator[Counters]:
    """Make backbones in the ``with`` block use ``store`` (None: no store), and yield the counters."""
    counters = Counters()
    token = _current.set((store, counters))
    try:
        yield counters
    finally:
        _current.reset(token)
        if store is not None:
            store.record(counters)


def open_store(options: Options) -> FeatureStore | None:
    """Return the feature store that the options name, by default that in the user's cache; None if it is off."""
    if options.features == "off":
        return None
    return FeatureStore(Path(options.features or cache_folder() / "features"), options.feature_budget)


def current() -> tuple[FeatureStore | None, Counters]:
    """Return the store in use, if any, and its counters."""
    return _current.get() or (None, Counters())
