"""The journal of a watched source: what has been judged, and what has still to be done with it. SQLite, in one file.

The order in which one image passes makes that a process may be killed at any time:

1. ``record``: the verdict is written, with its lines and the place that its file goes to. Now the image is judged.
2. The lines are appended to the log, the file is moved; ``finish`` says so.
3. Each sink is sent the verdict until it takes it; ``delivered`` says so.

An image of a part has no line of its own. It is kept (``part_images``) until its part is complete; then the verdict on
the part and the places of its files are recorded at once.

What was recorded and not finished is finished first when the journal is opened again. Only one process uses a journal.
"""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from iadbe.errors import BadConfig

FILE = "journal.sqlite"
SCHEMA = 1
PART = "/part/"  # begins the key of a part; the names of files below a folder never begin with a slash
TABLES = """
CREATE TABLE IF NOT EXISTS about (schema INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS images (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, verdict TEXT NOT NULL, lines TEXT NOT NULL, target TEXT NOT NULL,
    at REAL NOT NULL, log_end INTEGER, finished INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS open_images ON images (id) WHERE NOT finished;
CREATE TABLE IF NOT EXISTS deliveries (
    id INTEGER PRIMARY KEY, image INTEGER NOT NULL REFERENCES images, sink TEXT NOT NULL, line TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0, due REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS due_deliveries ON deliveries (sink, due);
CREATE TABLE IF NOT EXISTS part_images (
    image INTEGER PRIMARY KEY REFERENCES images, part TEXT NOT NULL, body TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """An image that was judged."""

    id: int
    key: str  # of the file: its name, size and time
    verdict: str  # "good", "look", "reject", "unreadable"; empty without a threshold
    lines: tuple[str, ...]  # JSON, one for each page
    target: str  # where its file goes to; empty: it stays
    log_end: int | None = None  # size of the log after its lines were written


@dataclass(frozen=True, slots=True)
class Delivery:
    """A verdict that a sink has not taken yet."""

    id: int
    line: str
    attempts: int


class Journal:
    """Safe to use from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        """Open the journal of an output folder, or make it. Raises :class:`BadConfig` where another process has it."""
        self._lock = threading.RLock()
        file = folder / FILE
        try:
            self._connection = sqlite3.connect(file, check_same_thread=False, isolation_level=None, timeout=1.0)
            self._connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(f"BEGIN EXCLUSIVE; {TABLES} COMMIT;")
            found = self._connection.execute("SELECT schema FROM about").fetchone()
            if found is None:
                self._connection.execute("INSERT INTO about VALUES (?)", (SCHEMA,))
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise BadConfig(
                    f"another process writes verdicts to {folder}. Stop it, or give another --out."
                ) from error
            raise BadConfig(f"{file} cannot be opened: {error}.") from error
        except sqlite3.DatabaseError as error:
            raise BadConfig(f"{file} is no journal of verdicts: {error}. Give another --out.") from error
        if found is not None and found != (SCHEMA,):
            raise BadConfig(f"{file} was written by another version of IADBE. Give another --out.")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def knows(self, key: str) -> bool:
        """Return whether an image has been judged."""
        with self._lock:
            return self._connection.execute("SELECT 1 FROM images WHERE key = ?", (key,)).fetchone() is not None

    def record(
        self, key: str, verdict: str, lines: Sequence[str], target: str, sinks: Sequence[str],
        part: tuple[str, str] | None = None,
    ) -> Entry:  # fmt: skip
        """Write down a verdict, and that each sink is to be sent it.

        ``part``: the name of an open part that the image belongs to, and what is to be kept of the image.
        """
        with self._writing() as connection:
            entry = _insert(connection, key, verdict, lines, target, sinks)
            if part is not None:
                connection.execute("INSERT INTO part_images VALUES (?, ?, ?)", (entry.id, *part))
        return entry

    def open_parts(self) -> list[tuple[int, str, str]]:
        """Return the images of parts that are not complete: number, part, and what was kept of it."""
        with self._lock:
            return self._connection.execute("SELECT image, part, body FROM part_images ORDER BY image").fetchall()

    def close_part(
        self, part: str, verdict: str, line: str, sinks: Sequence[str], targets: Mapping[int, str]
    ) -> None:  # fmt: skip
        """Write down the verdict on a part, and where the files of its images (by number) go to; empty: they stay."""
        with self._writing() as connection:
            _insert(connection, f"{PART}{part}\n{min(targets)}", verdict, [line], "", sinks)
            for number, target in targets.items():
                connection.execute("DELETE FROM part_images WHERE image = ?", (number,))
                if target:
                    connection.execute(
                        "UPDATE images SET target = ?, verdict = ?, finished = 0 WHERE id = ?",
                        (target, verdict, number),
                    )

    def wrote(self, entry: Entry, log_end: int) -> None:
        """Write down that an image's lines are in the log, which ends there."""
        with self._writing() as connection:
            connection.execute("UPDATE images SET log_end = ? WHERE id = ?", (log_end, entry.id))

    def finish(self, entry: Entry) -> None:
        """Write down that an image's file is where it belongs."""
        with self._writing() as connection:
            connection.execute("UPDATE images SET finished = 1 WHERE id = ?", (entry.id,))

    def unfinished(self) -> list[Entry]:
        """Return the images that were recorded and not finished, in their order."""
        query = "SELECT id, key, verdict, lines, target, log_end FROM images WHERE NOT finished ORDER BY id"
        with self._lock:
            rows = self._connection.execute(query).fetchall()
        return [Entry(n, key, verdict, tuple(json.loads(lines)), to, end) for n, key, verdict, lines, to, end in rows]

    def log_end(self) -> int:
        """Return the size of the log after the last lines that are known to be in it."""
        with self._lock:
            found = self._connection.execute(
                "SELECT log_end FROM images WHERE log_end NOT NULL ORDER BY id DESC LIMIT 1"
            ).fetchone()
        return int(found[0]) if found else 0

    def counts(self, of_parts: bool = False) -> dict[str, int]:
        """Return how many images, or parts, have each verdict."""
        query = f"SELECT verdict, count(*) FROM images WHERE (substr(key, 1, {len(PART)}) = ?) = ? GROUP BY verdict"
        with self._lock:
            return dict(self._connection.execute(query, (PART, of_parts)).fetchall())

    def due(self, sink: str, now: float, most: int = 100) -> list[Delivery]:
        """Return what a sink is to be sent now, the oldest first; nothing overtakes an older verdict that waits."""
        query = "SELECT id, line, attempts, due FROM deliveries WHERE sink = ? ORDER BY id LIMIT ?"
        with self._lock:
            rows = self._connection.execute(query, (sink, most)).fetchall()
        ready = []
        for number, line, attempts, due in rows:
            if due > now:
                break
            ready.append(Delivery(number, line, attempts))
        return ready

    def pending(self, sink: str = "") -> int:
        """Return how many verdicts a sink, or all sinks, have not taken."""
        where, values = (" WHERE sink = ?", (sink,)) if sink else ("", ())
        with self._lock:
            return int(self._connection.execute(f"SELECT count(*) FROM deliveries{where}", values).fetchone()[0])

    def delivered(self, delivery: Delivery) -> None:
        """Write down that a sink has taken a verdict."""
        with self._writing() as connection:
            connection.execute("DELETE FROM deliveries WHERE id = ?", (delivery.id,))

    def postpone(self, delivery: Delivery, due: float) -> None:
        """Write down that a sink did not take a verdict, and when it is tried again."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE deliveries SET attempts = attempts + 1, due = ? WHERE id = ?", (due, delivery.id)
            )

    @contextmanager
    def _writing(self) -> Iterator[Any]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _insert(
    connection: Any, key: str, verdict: str, lines: Sequence[str], target: str, sinks: Sequence[str]
) -> Entry:  # fmt: skip
    row = connection.execute(
        "INSERT INTO images (key, verdict, lines, target, at) VALUES (?, ?, ?, ?, ?)",
        (key, verdict, json.dumps(list(lines)), target, time.time()),
    )
    number = int(row.lastrowid or 0)
    connection.executemany(
        "INSERT INTO deliveries (image, sink, line) VALUES (?, ?, ?)",
        [(number, sink, line) for sink in sinks for line in lines],
    )
    return Entry(number, key, verdict, tuple(lines), target)
