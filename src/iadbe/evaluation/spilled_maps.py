"""Anomaly maps that are too many for memory, in a temporary file.

The file has no name where the system allows it, else the system removes it with its last handle: nothing is left behind
even by a process that was killed. It is read and written, not mapped, because mapped pages would count as the
process's memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np

IN_MEMORY = 2**28  # bytes of the maps of one test that are kept in memory; more of them are spilled


class SpilledMaps:
    """Maps (N, H, W) float32 of which one at a time is in memory."""

    def __init__(self, shape: tuple[int, int, int], folder: Path | None = None) -> None:
        """Make room for maps of a shape (N, H, W), in a folder or in that of temporary files."""
        self.shape = shape
        self._bytes = shape[1] * shape[2] * np.dtype(np.float32).itemsize
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115  (closed with this object)
        weakref.finalize(self, self._file.close)

    def write(self, first: int, maps: np.ndarray) -> None:
        """Write maps (B, H, W) from position ``first`` on."""
        self._file.seek(first * self._bytes)
        self._file.write(np.ascontiguousarray(maps, np.float32).data)
        self._file.flush()  # a full disk is said here

    def __len__(self) -> int:
        """Return the number of maps."""
        return self.shape[0]

    def __getitem__(self, i: int) -> np.ndarray:
        """Read one map, (H, W) float32."""
        if not 0 <= i < len(self):
            raise IndexError(f"there are {len(self)} maps, and no number {i}.")
        map_ = np.empty(self.shape[1:], np.float32)
        self._file.seek(int(i) * self._bytes)
        if self._file.readinto(map_.data.cast("B")) != self._bytes:
            raise OSError(f"map {i} was not written whole.")
        return map_

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read all maps in order, one at a time."""
        return (self[i] for i in range(len(self)))

    def close(self) -> None:
        """Give back the space on the disk."""
        self._file.close()


Maps = np.ndarray | SpilledMaps


def allocate(shape: tuple[int, int, int], folder: Path | None = None) -> Maps:
    """Allocate maps of a shape (N, H, W), in memory or, if they are too many, in a file in ``folder``."""
    bytes_ = shape[0] * shape[1] * shape[2] * np.dtype(np.float32).itemsize
    return np.empty(shape, np.float32) if bytes_ <= IN_MEMORY else SpilledMaps(shape, folder)


def put(maps: Maps, first: int, some: np.ndarray) -> None:
    """Write maps (B, H, W) from position ``first`` on."""
    if isinstance(maps, SpilledMaps):
        maps.write(first, some)
    else:
        maps[first : first + len(some)] = some
