"""The runs of a store by its SQLite index, read with Python's own sqlite3: SQLAlchemy alone takes longer to import.

It only reads. Folders that have changed since the index was written are read themselves; where they are many, where
there is no index, or where it cannot be read, :class:`iadbe.results.index.RunIndex` is asked, which also repairs it.
"""

from __future__ import annotations

import gc
import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from iadbe.errors import BadData
from iadbe.results.database import SCHEMA
from iadbe.results.index import FILE, RunQuery, read_entry
from iadbe.running.store import Store, from_json
from iadbe.types import RunResult

MAX_CHANGED = 200  # folders that are read themselves


@dataclass(frozen=True)
class StoredRuns:
    """Runs without their scores, by folder name."""

    by_folder: dict[str, RunResult]
    damaged: tuple[str, ...]  # a sentence for each folder that cannot be read

    def matching(self, query: RunQuery) -> dict[str, RunResult] | None:
        """Return the runs of a query, as :meth:`RunIndex.results` does; None where no run has one of its names."""
        found = self.by_folder
        for field in fields(query):
            if not (wanted := getattr(query, field.name)):
                continue
            known = {folder: _values(run, field.name) for folder, run in self.by_folder.items()}
            if set(wanted) - set().union(*known.values()):
                return None
            found = {folder: run for folder, run in found.items() if known[folder] & set(wanted)}
        return {folder: query.restrict(run) for folder, run in found.items()}


@contextmanager
def collector_paused() -> Iterator[None]:
    """Make many values that stay: the garbage collector would walk through all of them again and again."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def stored_runs(store: Store, stamps: Mapping[str, str]) -> StoredRuns | None:
    """Return the runs of a store, whose folders have these stamps; None where the index has to be asked."""
    documents = _indexed(store.root / FILE, stamps)
    if documents is None or len(stamps) - len(documents) > MAX_CHANGED:
        return None
    found, damaged = {}, []
    for folder in sorted(stamps):
        try:
            known = documents.get(folder)
            found[folder] = from_json(known) if known else read_entry(store, folder, stamps[folder])[0]
        except BadData as error:
            damaged.append(str(error))
    return StoredRuns(found, tuple(damaged))


def _indexed(file: Path, stamps: Mapping[str, str]) -> dict[str, dict[str, Any]] | None:
    """Return the content of each result.json that the index has in its present state."""
    if not file.is_file():
        return None
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # both tables as they are at one moment
            if connection.execute("SELECT schema FROM about").fetchone() != (SCHEMA,):
                return None
            heads = connection.execute("SELECT folder, stamp, document FROM runs").fetchall()
            current = [(folder, text) for folder, stamp, text in heads if stamps.get(folder) == stamp]
            documents = json.loads(f"[{','.join(text for _, text in current)}]")
            by_folder: dict[str, dict[str, Any]] = dict(zip((f for f, _ in current), documents, strict=True))
            rows = connection.execute("SELECT folder, step, test, metric, value FROM rows ORDER BY folder, n")
            for folder, *row in rows:
                if folder in by_folder:
                    by_folder[folder]["rows"].append(row)
            return by_folder
    except (sqlite3.Error, ValueError, LookupError, TypeError, AttributeError):
        return None


def _values(run: RunResult, field: str) -> set[Any]:
    """Return what a run has in a field of :class:`RunQuery`."""
    if field == "category":
        return {run.spec.task, *(row.test for row in run.rows)}
    return {getattr(run.spec, field)}
