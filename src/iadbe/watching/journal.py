"""The journal of a watched folder: which files were judged, how, and where they went. SQLite, one writer.

It is the truth: the file of verdicts is completed from it, and moves that were interrupted are finished from it. A
verdict is committed before its file is moved, so after a crash at any moment a file is either not judged yet, or is in
the journal with its verdict and the place that it goes to.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from iadbe.errors import BadConfig, BadData

FILE = "journal.sqlite"
SCHEMA = 1
TABLE = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    path TEXT NOT NULL, size INTEGER NOT NULL, modified INTEGER NOT NULL,
    verdict TEXT NOT NULL, rows TEXT NOT NULL, target TEXT NOT NULL, moved INTEGER NOT NULL DEFAULT 0
)
"""


class FileState(NamedTuple):
    """What a file is recognised by."""

    path: str  # relative to the source, with slashes
    size: int  # bytes
    modified: int  # nanoseconds


class Entry(NamedTuple):
    """A judged file."""

    number: int  # rises
    state: FileState
    verdict: str  # good, look, reject, unknown or unreadable
    rows: tuple[Mapping[str, Any], ...]  # of its images
    target: str  # where it is moved to, relative to the output folder; empty: it stays
    moved: bool


class Journal:
    """The entries of one output folder. Only one process may have it open."""

    def __init__(self, folder: Path) -> None:
        """Open or create the journal of an output folder.

        Raises :class:`BadConfig` where another process has it open, :class:`BadData` where it is damaged.
        """
        self.file = folder / FILE
        self._database = sqlite3.connect(self.file, timeout=0.5, isolation_level=None, check_same_thread=False)
        try:
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("BEGIN EXCLUSIVE")
            version = self._database.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, SCHEMA):
                raise BadConfig(f"{self.file} was written by another version of IADBE. Choose another output folder.")
            self._database.execute(TABLE)
            self._database.execute("CREATE INDEX IF NOT EXISTS by_path ON files (path)")
            self._database.execute(f"PRAGMA user_version = {SCHEMA}")
            self._database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            self._database.close()
            raise BadConfig(
                f"{self.file} cannot be used ({error}): another `iadbe watch` may write to it. Choose another folder."
            ) from error
        except sqlite3.DatabaseError as error:
            self._database.close()
            raise BadData(f"{self.file} is no journal ({error}). Choose another output folder.") from error
        except BadConfig:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the journal, and let other processes open it."""
        self._database.close()

    def add(self, state: FileState, verdict: str, rows: Sequence[Mapping[str, Any]], target: str) -> Entry:
        """Record a verdict durably; an empty ``target`` says that the file stays where it is."""
        values = (*state, verdict, json.dumps(list(rows)), target, not target)
        columns = "path, size, modified, verdict, rows, target, moved"
        cursor = self._database.execute(f"INSERT INTO files ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", values)
        assert cursor.lastrowid is not None
        return Entry(cursor.lastrowid, state, verdict, tuple(rows), target, not target)

    def mark_moved(self, number: int) -> None:
        """Record that an entry's file is at its target."""
        self._database.execute("UPDATE files SET moved = 1 WHERE number = ?", (number,))

    def last(self, state: FileState) -> Entry | None:
        """Return the last entry of a file in this state; None: it was not judged."""
        found = self._select("WHERE path = ? AND size = ? AND modified = ? ORDER BY number DESC LIMIT 1", state)
        return next(found, None)

    def after(self, number: int) -> Iterator[Entry]:
        """Yield the entries after a number, in order."""
        return self._select("WHERE number > ? ORDER BY number", (number,))

    def unmoved(self) -> list[Entry]:
        """Return the entries whose file may not be at its target."""
        return list(self._select("WHERE moved = 0 ORDER BY number", ()))

    def is_target(self, target: str) -> bool:
        """Return whether a file goes or went to this target."""
        return next(self._select("WHERE target = ? LIMIT 1", (target,)), None) is not None

    def counts(self) -> dict[str, int]:
        """Return the number of files by verdict."""
        return dict(self._database.execute("SELECT verdict, COUNT(*) FROM files GROUP BY verdict ORDER BY verdict"))

    def _select(self, where: str, values: Sequence[Any]) -> Iterator[Entry]:
        columns = "number, path, size, modified, verdict, rows, target, moved"
        for row in self._database.execute(f"SELECT {columns} FROM files {where}", values):
            yield Entry(row[0], FileState(*row[1:4]), row[4], tuple(json.loads(row[5])), row[6], bool(row[7]))
