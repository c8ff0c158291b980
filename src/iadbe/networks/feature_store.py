"""The feature store: what a frozen backbone saw in an image is computed once and kept on disk.

A row is one layer's features of one image, at ``<weights>/<layer>/<digest of the pixels in the view>.npy``;
``<weights>`` names the weights' fingerprint, the network and the kind of device.
Everything that decides a row is in its address, so rows are shared by detectors, epochs, seeds, settings and
processes, and never go stale. Detectors do not know that the store exists; :class:`iadbe.networks.backbone.Backbone`
asks the one that :func:`using` has opened. A row appears whole (temporary file, then rename) or not at all;
two processes that write the same row write the same bytes. The file ``tally`` has a line for each use: how many
images went through a backbone, and how many were spared.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iadbe.cache import cache_folder
from iadbe.types import Options

BUDGET_BYTES = 20 * 2**30
SCAN_INTERVAL = 512  # rows written between two looks at what other processes have added
STALE_SECONDS = 3600  # seconds after which an unfinished row has no writer any more
USAGE_FILE = "tally"


@dataclass
class Counters:
    """How many images went through the backbone, and how many were spared."""

    computed: int = 0
    stored: int = 0


class FeatureStore:
    """Rows of features in a folder, with a budget: the rows unused for longest go first."""

    def __init__(self, root: Path, budget: int = BUDGET_BYTES) -> None:
        self.root = Path(root)
        self.budget = budget
        self._bytes: int | None = None  # known after the first look
        self._written = 0

    def get(self, weights: str, layer: int, key: str) -> np.ndarray | None:
        """Return a row (C, h, w) float32, mapped into memory, or None."""
        path = self._path(weights, layer, key)
        try:
            row = np.load(path, mmap_mode="r", allow_pickle=False)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):  # a damaged disk or a foreign file: compute it again
            with suppress(OSError):
                path.unlink()
            return None
        with suppress(OSError):  # a store that may only be read is still a store
            os.utime(path)  # so that eviction knows what is in use
        return row

    def put(self, weights: str, layer: int, key: str, row: np.ndarray) -> None:
        """Keep a row. A full disk is not an error: the store is a convenience."""
        path = self._path(weights, layer, key)
        part = None
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
                part = Path(file.name)
                np.save(file, np.ascontiguousarray(row, dtype=np.float32), allow_pickle=False)
            part.replace(path)
        except OSError:
            if part is not None:
                part.unlink(missing_ok=True)
            return
        self._written += 1
        if self._bytes is None or self._written % SCAN_INTERVAL == 0:
            self._sweep()
            self._bytes = self.size()
        else:
            self._bytes += row.nbytes + 128
        if self._bytes > self.budget:
            self._evict()

    def size(self) -> int:
        """Return the bytes on disk."""
        return sum(size for _, size in self.networks().values())

    def networks(self) -> dict[str, tuple[int, int]]:
        """Return the rows and the bytes on disk of each network, by the name that ``Backbone`` gives it."""
        found: dict[str, tuple[int, int]] = {}
        for row in self._rows():
            with suppress(FileNotFoundError):  # another process evicts
                size = row.stat().st_size
                rows, total = found.get(name := row.parts[-3], (0, 0))
                found[name] = (rows + 1, total + size)
        return found

    def record(self, counters: Counters) -> None:
        """Add what a use has counted to the tally; short appended lines of several processes do not mix."""
        if counters.computed or counters.stored:
            with suppress(OSError), open(self.root / USAGE_FILE, "ab", buffering=0) as file:
                file.write(f"{counters.computed} {counters.stored}\n".encode())

    def usage(self) -> Counters:
        """Return what all uses have counted since the store was last cleared."""
        total = Counters()
        with suppress(OSError):
            for line in (self.root / USAGE_FILE).read_text().splitlines():
                computed, _, stored = line.partition(" ")
                if computed.isdecimal() and stored.isdecimal():  # a full disk cuts lines short
                    total.computed += int(computed)
                    total.stored += int(stored)
        return total

    def clear(self) -> None:
        """Remove every row, and the tally."""
        shutil.rmtree(self.root, ignore_errors=True)
        self._bytes = None

    def _path(self, weights: str, layer: int, key: str) -> Path:
        return self.root / weights / str(layer) / f"{key}.npy"

    def _rows(self) -> Iterator[Path]:
        return self.root.glob("*/*/*.npy") if self.root.is_dir() else iter(())

    def _sweep(self) -> None:
        """Remove what writers that were killed have left behind; a living one needs seconds, not an hour."""
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
            row.unlink(missing_ok=True)
            total -= size
        self._bytes = total


_current: ContextVar[tuple[FeatureStore | None, Counters] | None] = ContextVar("feature_store", default=None)


@contextmanager
def using(store: FeatureStore | None) -> Iterator[Counters]:
    """Let backbones in the block use ``store`` (None: none), and count the images."""
    counters = Counters()
    token = _current.set((store, counters))
    try:
        yield counters
    finally:
        _current.reset(token)
        if store is not None:
            store.record(counters)


def open_store(options: Options) -> FeatureStore | None:
    """Open the feature store that the options name, by default in the user's cache; None where it is off."""
    if options.features == "off":
        return None
    return FeatureStore(Path(options.features or cache_folder() / "features"), options.feature_budget)


def current() -> tuple[FeatureStore | None, Counters]:
    """Return the store in use, if any, and its counters."""
    return _current.get() or (None, Counters())
