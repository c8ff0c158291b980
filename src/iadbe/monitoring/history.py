"""The hours of a model in use: how many images fell into each bin of each channel, in a SQLite file beside the model.

A row is one hour (UTC) of one source (``predict``, ``watch``, ``server``) and one channel. Several processes may write.
Hours belong to a calibration: those of an earlier one stay, and are not compared with a later one.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from iadbe.errors import BadData

FILE = "drift.sqlite"
SCHEMA = """
CREATE TABLE IF NOT EXISTS hours (
    reference TEXT, hour TEXT, source TEXT, channel TEXT, counts TEXT, total REAL,
    PRIMARY KEY (reference, hour, source, channel)
);
CREATE TABLE IF NOT EXISTS verdicts (
    reference TEXT, hour TEXT, source TEXT, verdict TEXT, images INTEGER,
    PRIMARY KEY (reference, hour, source, verdict)
);
"""
TIMEOUT = 30.0  # seconds that one process waits for another


@dataclass(frozen=True)
class Hour:
    """The images of one hour, of one source or of several."""

    hour: str  # 2026-05-01T13
    counts: Mapping[str, np.ndarray]  # (B,) images by bin, of each channel
    means: Mapping[str, float]
    verdicts: Mapping[str, int]

    @property
    def images(self) -> int:
        """How many images there were."""
        return sum(self.verdicts.values())

    @property
    def rejected(self) -> float:
        """The share of them that were rejected."""
        return self.verdicts.get("reject", 0) / max(self.images, 1)


def hour_of(time: datetime) -> str:
    """Return the hour of a time, in UTC."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H")


class History:
    """The hours in one file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def add(
        self, reference: str, hour: str, source: str, counts: Mapping[str, Sequence[int]],
        totals: Mapping[str, float], verdicts: Mapping[str, int],
    ) -> None:  # fmt: skip
        """Add images to an hour: all of it is kept, or nothing."""
        with self._connection(writing=True) as connection:
            for channel, more in counts.items():
                key = (reference, hour, source, channel)
                where = "reference = ? AND hour = ? AND source = ? AND channel = ?"
                row = connection.execute(f"SELECT counts, total FROM hours WHERE {where}", key).fetchone()
                known = json.loads(row[0]) if row else [0] * len(more)
                text = json.dumps([a + int(b) for a, b in zip(known, more, strict=True)])
                total = (row[1] if row else 0.0) + totals[channel]
                connection.execute("INSERT OR REPLACE INTO hours VALUES (?, ?, ?, ?, ?, ?)", (*key, text, total))
            for verdict, images in verdicts.items():
                connection.execute(
                    "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET images = images + ?",
                    (reference, hour, source, verdict, images, images),
                )

    def hours(self, reference: str, source: str = "") -> list[Hour]:
        """Return the hours of a calibration in their order, of one source or of all together."""
        if not self.file.is_file():
            return []
        only, values = (" AND source = ?", (reference, source)) if source else ("", (reference,))
        with self._connection(writing=False) as connection:
            rows = connection.execute(
                f"SELECT hour, channel, counts, total FROM hours WHERE reference = ?{only} ORDER BY hour", values
            ).fetchall()
            judged = connection.execute(
                f"SELECT hour, verdict, SUM(images) FROM verdicts WHERE reference = ?{only} GROUP BY hour, verdict",
                values,
            ).fetchall()
        counts: dict[str, dict[str, np.ndarray]] = {hour: {} for hour in sorted({hour for hour, _, _ in judged})}
        sums: dict[tuple[str, str], float] = {}
        for hour, channel, text, total in rows:
            found, bins = counts.setdefault(hour, {}), np.array(json.loads(text), np.int64)
            found[channel] = found[channel] + bins if channel in found else bins
            sums[hour, channel] = sums.get((hour, channel), 0.0) + total
        verdicts: dict[str, dict[str, int]] = {}
        for hour, verdict, images in judged:
            verdicts.setdefault(hour, {})[verdict] = images
        return [
            Hour(hour, own, {c: sums[hour, c] / max(int(n.sum()), 1) for c, n in own.items()}, verdicts.get(hour, {}))
            for hour, own in sorted(counts.items())
        ]

    @contextmanager
    def _connection(self, *, writing: bool) -> Iterator[sqlite3.Connection]:
        """Yield a connection in one transaction; raise :class:`BadData` where the file cannot be used."""
        try:
            with closing(sqlite3.connect(self.file, timeout=TIMEOUT)) as connection, connection:
                if writing:
                    connection.executescript(SCHEMA)
                connection.execute("BEGIN IMMEDIATE" if writing else "BEGIN")
                yield connection
        except (sqlite3.Error, ValueError, TypeError) as error:
            raise BadData(f"{self.file} cannot be used ({error}). Remove it: the hours begin anew then.") from error
