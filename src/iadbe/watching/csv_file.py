"""A sink that appends each verdict to a CSV file: UTF-8, one line each, nothing twice.

Only the verdict that was under way when the process was killed can be sent again. It is recognised by its id in the
file's last line, and a line that was written in part is completed. Text that a spreadsheet would run as a formula gets
an apostrophe; control characters, line ends among them, are written as escapes.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from iadbe.errors import BadConfig
from iadbe.results.table import csv_cell
from iadbe.watching.delivery import Sink
from iadbe.watching.placement import escaped

COLUMNS = (
    "id", "time", "part", "path", "images", "verdict", "score", "scaled", "threshold", "regions", "moved_to", "error",
)  # fmt: skip
TAIL_BYTES = 1 << 20  # of the file that are read for its last line


class CsvFile(Sink):
    """Appends to one file, which other programs may read meanwhile."""

    name: ClassVar[str] = "csv"

    def __init__(self, file: Path) -> None:
        """Open the file, or make it. Raises :class:`BadConfig` where it is another table, or cannot be written."""
        self._path = file
        head = _row(COLUMNS)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._file = file.open("ab+", buffering=0)  # what a full disk refused must not wait in a buffer
            self._file.seek(0)
            found = self._file.read(len(head))
        except OSError as error:
            raise BadConfig(f"--csv {file} cannot be written: {(error.strerror or str(error)).lower()}.") from error
        if not head.startswith(found):
            self._file.close()
            raise BadConfig(f"--csv {file} is another table: it begins with other columns. Give another file.")
        if found != head:  # it is new, or its first line was cut off
            self._file.truncate(0)
            self._append(head)
        self._last_id = self._tail().rpartition(b"\n")[0].rpartition(b"\n")[2].partition(b",")[0]

    def send(self, line: str) -> None:
        """Append one verdict, a JSON line, and wait for the disk. Raises OSError where that fails."""
        row = row_of(json.loads(line))
        own = row.partition(b",")[0]
        if own == self._last_id:
            return
        half = self._tail().rpartition(b"\n")[2]
        if half and row.startswith(half):  # written in part before a kill, or when the disk was full
            self._file.truncate(self._file.seek(0, os.SEEK_END) - len(half))
        self._append((b"\n" if half and not row.startswith(half) else b"") + row)
        self._last_id = own

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _append(self, data: bytes) -> None:
        while data:
            data = data[self._file.write(data) :]
        os.fsync(self._file.fileno())

    def _tail(self) -> bytes:
        """Return the end of the file, with its last whole line."""
        size = self._file.seek(0, os.SEEK_END)
        self._file.seek(max(0, size - TAIL_BYTES))
        return self._file.read()


def row_of(record: Mapping[str, Any]) -> bytes:
    """Return a verdict on an image or a part as one line."""
    images, regions = record.get("images"), record.get("regions")
    values = {
        **record,
        "images": 1 if images is None else len(images),
        "path": record.get("path", record.get("highest")),
        "regions": None if regions is None else len(regions),
    }
    return _row([_cell(values.get(name)) for name in COLUMNS])


def _row(cells: Sequence[Any]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue().encode("utf-8", "backslashreplace")


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return "" if value is None else value
    return csv_cell(escaped(value))
