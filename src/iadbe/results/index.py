"""The SQL index over a store. It makes tables fast, is not the source of truth, and repairs itself.

SQLite beside the run folders by default (``<store>/index.sqlite``), PostgreSQL by URL; one database per store. Every
query first compares the folders with the index by name and time, so a stale, damaged or deleted index never gives a
wrong table. A run that cannot be read is reported and left out. Scores stay in their files.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

from iadbe import system
from iadbe.errors import BadConfig, BadData, IadbeError, UnknownName, did_you_mean
from iadbe.results import database
from iadbe.results.table_cache import file_stamp, folder_stamps
from iadbe.running import result_fields
from iadbe.running.store import RESULT, Store, folder_name, from_json, to_json
from iadbe.types import RunResult

if TYPE_CHECKING:
    from sqlalchemy import ColumnElement

FILE = "index.sqlite"
CHUNK = 200  # runs written in one statement

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RunQuery:
    """A filter of runs: each field lists the wanted values, an empty field means all."""

    dataset: tuple[str, ...] = ()
    category: tuple[str, ...] = ()  # a task, or one of the tests of a task
    setting: tuple[str, ...] = ()
    protocol: tuple[str, ...] = ()
    detector: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()

    def restrict(self, result: RunResult) -> RunResult:
        """Return the run with only the tests of the wanted categories."""
        if not self.category or result.spec.task in self.category:
            return result
        rows = tuple(r for r in result.rows if r.test in self.category)
        return replace(result, rows=rows, scores=tuple(s for s in result.scores if s.test in self.category))


class SyncReport(NamedTuple):
    """What :meth:`RunIndex.sync` has done."""

    added: int
    removed: int
    damaged: tuple[str, ...]  # a sentence for each folder that cannot be read


class _Entry(NamedTuple):
    """A run's columns in the index."""

    folder: str
    run: dict[str, Any]  # columns
    rows: list[dict[str, Any]]


class RunIndex:
    """The index of one store. Use it in a ``with`` block, or close it."""

    def __init__(self, store: Store, url: str = "") -> None:
        """Open or create the index. ``url`` is a database's URL; empty means SQLite in the store's folder.

        A store that cannot be written to is indexed in memory.
        """
        self.store = store
        self.damaged: tuple[str, ...] = ()  # sentences from the last sync
        writable = store.root.is_dir() and not store.is_read_only
        self._where = database.address(url or (f"sqlite:///{store.root / FILE}" if writable else "sqlite://"))
        self._engine = database.connect(self._where)
        self._with_repair(lambda: database.prepare(self._engine))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the database."""
        self._engine.dispose()

    def add(self, result: RunResult) -> None:
        """Add one run that the store has just saved."""
        folder = folder_name(result.spec)
        entry = _entry(folder, file_stamp(self.store.root / folder / RESULT), to_json(result))
        self._with_repair(lambda: self._write([entry]))

    def sync(self) -> SyncReport:
        """Add new and changed runs, remove deleted ones. Without changes it only lists the folder."""
        return self._with_repair(self._sync)

    def rebuild(self) -> int:
        """Rebuild the index from the folders, return its number of runs; others see the old or the new index."""
        entries, _ = self._read(folder_stamps(self.store.root))
        self._with_repair(lambda: self._write(entries, all_else=True))
        self.sync()  # runs saved meanwhile
        return len(self._with_repair(self._indexed))

    def results(self, query: RunQuery | None = None) -> list[RunResult]:
        """Return the runs of a query by folder name, without their scores.

        Unreadable folders are in :attr:`damaged`. Raises :class:`UnknownName` for a name that no run has.
        """
        self.sync()
        return self._with_repair(lambda: self._select(query or RunQuery()))

    def names(self, field: str) -> list[Any]:
        """Return all values of a field of :class:`RunQuery`, sorted."""
        from sqlalchemy import select, union

        runs, rows = _tables()
        query: Any = select(runs.c["task" if field == "category" else field]).distinct()
        if field == "category":
            query = union(query, select(rows.c.test).distinct())
        with self._engine.connect() as connection:
            return sorted(connection.execute(query).scalars())

    def _check(self, query: RunQuery) -> None:
        for field in fields(query):
            wanted = getattr(query, field.name)
            known = self.names(field.name) if wanted else []
            for name in wanted:
                if name not in known:
                    hint = did_you_mean(str(name), map(str, known))
                    have = f"It has: {', '.join(map(str, known))}." if known else "It has no runs."
                    raise UnknownName(f"no run in {self.store.root} has the {field.name} {name!r}.{hint} {have}")

    def _indexed(self) -> dict[str, str]:
        from sqlalchemy import select

        runs, _ = _tables()
        with self._engine.connect() as connection:
            return {folder: stamp for folder, stamp in connection.execute(select(runs.c.folder, runs.c.stamp))}

    def _sync(self) -> SyncReport:
        found, known = folder_stamps(self.store.root), self._indexed()
        changed = {folder: stamp for folder, stamp in found.items() if known.get(folder) != stamp}
        entries, damaged = self._read(changed)
        unread = changed.keys() - {e.folder for e in entries}
        # a run saved after the folders were listed is in the index and not deleted
        gone = [f for f in known if f not in found and not (self.store.root / f / RESULT).is_file()]
        gone += [f for f in known if f in unread]
        if entries or gone:
            self._write(entries, gone)
        self.damaged = tuple(damaged)
        return SyncReport(len(entries), len(gone), tuple(damaged))

    def _read(self, folders: dict[str, str]) -> tuple[list[_Entry], list[str]]:
        """Read run folders; return them, and one sentence for each that cannot be read."""
        entries, damaged = [], []
        for folder, stamp in sorted(folders.items()):
            try:
                entries.append(read_entry(self.store, folder, stamp)[1])
            except BadData as error:  # one bad folder must not hide the others
                damaged.append(str(error))
        return entries, damaged

    def _write(self, entries: Sequence[_Entry], gone: Sequence[str] = (), *, all_else: bool = False) -> None:
        """Replace ``entries`` and remove ``gone`` (or all others) in one transaction."""
        runs, rows = _tables()
        with database.writing(self._engine) as connection:
            if all_else:
                connection.execute(rows.delete())
                connection.execute(runs.delete())
            for some in _chunks([*(e.folder for e in entries), *gone]):
                connection.execute(rows.delete().where(rows.c.folder.in_(some)))
                connection.execute(runs.delete().where(runs.c.folder.in_(some)))
            for few in _chunks(entries):
                connection.execute(runs.insert(), [e.run for e in few])
                if numbers := [columns for e in few for columns in e.rows]:
                    connection.execute(rows.insert(), numbers)

    def _select(self, query: RunQuery) -> list[RunResult]:
        from sqlalchemy import select

        self._check(query)
        runs, rows = _tables()
        wanted = _conditions(query)
        heads = select(runs.c.folder, runs.c.document).where(*wanted).order_by(runs.c.folder)
        numbers = select(rows).join(runs).where(*wanted).order_by(rows.c.folder, rows.c.n)
        with self._engine.connect() as connection:
            documents = {folder: json.loads(text) for folder, text in connection.execute(heads)}
            for row in connection.execute(numbers):
                if row.folder in documents:  # else added by another process since
                    documents[row.folder]["rows"].append((row.step, row.test, row.metric, row.value))
        return [query.restrict(from_json(raw)) for raw in documents.values()]

    def _with_repair(self, work: Callable[[], T]) -> T:
        """Do ``work``; if the SQLite file is damaged or deleted, rebuild it and do ``work`` again."""
        from sqlalchemy.exc import DBAPIError

        try:
            return work()
        except DBAPIError as error:
            file = self._where.database if self._where.get_backend_name() == "sqlite" else None
            if not (file and database.is_damage(error)):
                where = self._where.render_as_string(hide_password=True)
                raise BadConfig(f"the index {where} cannot be used: {str(error.orig).strip()}") from error
        self._engine.dispose()
        for end in ("", "-wal", "-shm"):
            system.remove(f"{file}{end}")
        database.prepare(self._engine)
        self._sync()
        return work()


def read_entry(store: Store, folder: str, stamp: str) -> tuple[RunResult, _Entry]:
    """Read a run's result.json, without its scores. Raises :class:`BadData` where it is damaged."""
    file = store.root / folder / RESULT
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        result_fields.check(raw)
        return from_json(raw), _entry(folder, stamp, raw)
    except Exception as error:
        what = f"{file} is damaged ({type(error).__name__}: {error})"
        raise BadData(f"{what}. Remove its folder and run again.") from error


def with_scores(store: Store, results: Sequence[RunResult]) -> tuple[list[RunResult], list[str]]:
    """Return the runs with their scores, and a sentence for each that is left out: its folder cannot be read."""
    whole, damaged = [], []
    for result in results:
        try:
            whole.append(result if result.scores or result.error else store.load(folder_name(result.spec)))
        except IadbeError as error:
            damaged.append(str(error))
    return whole, damaged


def rebuild(store: Store, url: str = "") -> int:
    """Rebuild a store's index from its folders and return its number of runs."""
    with RunIndex(store, url) as index:
        return index.rebuild()


def _tables() -> tuple[Any, Any]:
    tables = database.schema().tables
    return tables["runs"], tables["rows"]


def _entry(folder: str, stamp: str, raw: dict[str, Any]) -> _Entry:
    """Return the columns of a result.json; raises for unexpected content."""
    spec, name = raw["spec"], _text(folder)
    words = ("detector", "dataset", "setting", "task", "protocol", "data")
    run: dict[str, Any] = {column: _text(spec[column]) for column in words}
    run |= {"folder": name, "stamp": stamp, "run": _text(raw["run"]), "seed": int(spec["seed"])}
    run |= {"error": _text(raw["error"]), "date": _text(str(raw["environment"].get("date", "")))}
    run |= {"latency_ms": _number(raw["latency_ms"]), "fit_seconds": _number(raw["seconds"].get("fit"))}
    run |= {"peak_bytes": int(raw["memory"].get("peak", 0)), "document": json.dumps({**raw, "rows": []})}
    rows: list[dict[str, Any]] = []
    for n, (step, test, metric, value) in enumerate(raw["rows"]):
        known = {"folder": name, "n": n, "step": int(step), "test": _text(test), "metric": _text(metric)}
        rows.append({**known, "value": _number(value)})
    return _Entry(folder, run, rows)


def _number(value: float | None) -> float | None:
    return None if value is None else float(value)


def _text(value: str) -> str:
    """Return text that every database accepts: folder names may hold bytes that are not text."""
    return value.replace("\0", "").encode("utf-8", "replace").decode("utf-8")


def _conditions(query: RunQuery) -> list[ColumnElement[bool]]:
    from sqlalchemy import or_, select

    runs, rows = _tables()
    plain = ("dataset", "setting", "protocol", "detector", "seed")
    wanted = [runs.c[name].in_(getattr(query, name)) for name in plain if getattr(query, name)]
    if query.category:
        tested = select(rows.c.folder).where(rows.c.test.in_(query.category))
        wanted.append(or_(runs.c.task.in_(query.category), runs.c.folder.in_(tested)))
    return wanted


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), CHUNK):
        yield items[start : start + CHUNK]
