"""The log of verdicts: JSON lines, each of them once, whatever kills the process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

FILE = "verdicts.jsonl"


class VerdictLog:
    """A file that lines are appended to. What follows ``end`` is not known to be whole, and is written anew."""

    def __init__(self, file: Path, end: int) -> None:
        """Open the log; ``end`` is its size after the last lines that are known to be in it.

        A shorter file was taken away by somebody, or begun anew: it is gone on with.
        """
        self._file = file.open("ab")
        size = file.stat().st_size
        if size > end:
            self._file.truncate(end)
            self._file.seek(end)

    def append(self, lines: Sequence[str]) -> int:
        """Write lines to the disk; return the file's size."""
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.seek(0, os.SEEK_END)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
