"""A cache of finished tables below the store, so that unchanged runs are not read and resampled again.

``<store>/.tables/KEY.json`` holds tables as JSON. A key is the hash of the folders and times of the runs that a table
is made of, of what was asked, and of this package's files: nothing in it can go stale, and all of it may be deleted.
One file holds the answer to a whole request, others hold the table of each comparison and the intervals of each of its
detectors, so of a new run's comparison only the scores of its detector are read again. A store that cannot be written
to is not cached.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from iadbe import system
from iadbe.results.table import Cell, Column, Table

if TYPE_CHECKING:  # the packages behind these take long to import, which a cached table does not need
    from iadbe.evaluation.confidence import Interval
    from iadbe.results.comparison import Comparison
    from iadbe.running.store import Store
    from iadbe.types import RunResult

FOLDER = ".tables"
MAX_FILES = 200  # the least recently used go first
PACKAGE = Path(__file__).parent.parent
SOURCES = ("curves", "evaluation", "metrics", "report", "reported", "results", "settings")  # that numbers come from


class Cached(NamedTuple):
    """Tables, and sentences on runs that could not be read."""

    tables: list[Table]
    damaged: list[str]


class TableCache:
    """The tables of one store."""

    def __init__(self, root: Path) -> None:
        self.folder = root / FOLDER
        self.stamps = folder_stamps(root)  # of result.json, by the run's folder

    def key(self, *asked: Any, folders: Sequence[str] | None = None) -> str:
        """Return the key of what was asked (values that JSON holds) of some run folders, or of all."""
        stamps = self.stamps if folders is None else {f: self.stamps.get(f, "") for f in sorted(folders)}
        text = json.dumps([_package(), asked, stamps], sort_keys=True, default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def get(self, key: str) -> Cached | None:
        """Return what :meth:`put` kept, or None."""
        file = self.folder / f"{key}.json"
        try:
            raw = json.loads(file.read_text(encoding="utf-8"))
            found = Cached([_table(t) for t in raw["tables"]], [str(s) for s in raw["damaged"]])
            os.utime(file)
        except (OSError, ValueError, LookupError, TypeError):
            return None
        return found

    def put(self, key: str, tables: Sequence[Table], damaged: Sequence[str] = ()) -> None:
        """Keep tables; where the store cannot be written to, nothing is kept."""
        self._write(key, {"tables": [asdict(t) for t in tables], "damaged": list(damaged)})

    def intervals(self, name: str, keys: Mapping[str, str]) -> dict[tuple[Any, ...], Interval | None]:
        """Return what :meth:`keep_intervals` kept of the detectors whose keys have not changed."""
        from iadbe.evaluation.confidence import Interval

        try:
            raw = json.loads((self.folder / f"{name}.json").read_text(encoding="utf-8"))
            of = [(entry, raw["intervals"].get(key, ())) for entry, key in keys.items()]
            return {
                ("interval", entry, *map(str, about)): None if ends is None else Interval(*map(float, ends))
                for entry, found in of
                for about, ends in found
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}

    def keep_intervals(self, name: str, keys: Mapping[str, str], known: Mapping[tuple[Any, ...], Any]) -> None:
        """Keep the intervals of a comparison's cache: of each detector under its key, which holds its runs."""
        found: dict[str, list[Any]] = {}
        for (what, *about), ends in known.items():
            if what == "interval" and about[0] in keys:
                found.setdefault(keys[about[0]], []).append([about[1:], ends])
        self._write(name, {"intervals": found})

    def _write(self, key: str, content: Any) -> None:
        with suppress(OSError):
            self.folder.mkdir(exist_ok=True)
            text = json.dumps(content)
            staging = self.folder / f"{key}.{os.getpid()}.part"
            staging.write_text(text, encoding="utf-8")
            system.replace(staging, self.folder / f"{key}.json")
            files = sorted(self.folder.iterdir(), key=lambda f: f.stat().st_mtime, reverse=True)
            for file in files[MAX_FILES:]:
                system.remove(file)


def tables_of(
    store: Store,
    runs: Sequence[RunResult],
    make: Callable[[Comparison], Table],
    asked: Any,
    *,
    scores: bool,
    wanted: Callable[[Sequence[Comparison]], Sequence[Comparison]] = lambda found: found,
    cache: TableCache | None = None,
    folder_of: Callable[[RunResult], str] | None = None,
) -> Cached:
    """Return the table of each comparison of ``runs``, from the cache where its runs are unchanged.

    ``asked`` is all that ``make`` depends on besides the comparison. With ``scores`` the scores are read of the
    detectors whose intervals are not kept. ``wanted`` chooses among the comparisons. ``folder_of`` gives a run's
    folder, which otherwise follows from its identity.
    """
    from iadbe.results.comparison import compare
    from iadbe.running.store import folder_name

    cache = cache or TableCache(store.root)
    named = folder_of or (lambda run: folder_name(run.spec))
    tables, damaged = [], []
    for comparison in wanted(compare(runs)):
        folders = [named(run) for run in comparison.runs]
        key = cache.key(asked, comparison.title, scores, folders=folders)
        if (found := cache.get(key)) is None:
            found = _made(store, cache, comparison, make, named) if scores else Cached([make(comparison)], [])
            cache.put(key, *found)
        tables += found.tables
        damaged += found.damaged
    return Cached(tables, damaged)


def _made(
    store: Store, cache: TableCache, comparison: Comparison, make: Callable[[Comparison], Table],
    named: Callable[[RunResult], str],
) -> Cached:  # fmt: skip
    """Return the table of one comparison. Runs whose scores cannot be read are left out."""
    from iadbe.errors import BadData
    from iadbe.results.comparison import compare
    from iadbe.results.run_cases import read_cases

    def source(run: RunResult) -> Any:
        return {} if run.error else read_cases(store, named(run))

    def of(parts: Iterable[Comparison]) -> list[Table]:
        """Return the tables of these comparisons, whose runs' scores are read where they are needed."""
        tables = []
        for part in parts:
            keys = {e.name: cache.key("intervals", folders=[named(r) for r in e.runs]) for e in part.entries}
            name = cache.key("intervals", part.title, part.data, folders=())
            part.cache.update(cache.intervals(name, keys))
            tables.append(make(part))
            cache.keep_intervals(name, keys, part.cache)
        return tables

    try:
        entries = tuple(replace(entry, case_source=source) for entry in comparison.entries)
        return Cached(of([replace(comparison, entries=entries)]), [])
    except BadData:
        well, damaged = [], []
        for run in comparison.runs:
            try:
                source(run)
                well.append(run)
            except BadData as error:
                damaged.append(str(error))
        parts = compare(well, source)
        named_alike = [replace(part, name=comparison.name, ambiguous=comparison.ambiguous) for part in parts]
        return Cached(of(named_alike), damaged)


def folder_stamps(root: Path, name: str = "result.json") -> dict[str, str]:
    """Return what changes with a file of each run folder, by the folder's name; folders without it are left out."""
    if not root.is_dir():
        return {}
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    stamps = {folder: file_stamp(f"{root}/{folder}/{name}") for folder in names}
    return {folder: found for folder, found in stamps.items() if found}


def file_stamp(path: str | Path) -> str:
    """Return a string that changes with the file, empty where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return ""
    return f"{status.st_mtime_ns}-{status.st_size}"


@cache
def _package() -> str:
    """Return what changes with the code and the published numbers that tables are made of."""
    files = [file for name in SOURCES for file in sorted((PACKAGE / name).iterdir()) if file.is_file()]
    return " ".join(file_stamp(file) for file in (*files, PACKAGE / "metric.py", PACKAGE / "types.py"))


def _table(raw: Mapping[str, Any]) -> Table:
    columns = tuple(Column(**c) for c in raw["columns"])
    rows = tuple(tuple(Cell(**{**c, "marks": tuple(c["marks"])}) for c in row) for row in raw["rows"])
    footnotes = tuple((str(mark), str(text)) for mark, text in raw["footnotes"])
    return Table(raw["title"], columns, rows, footnotes, raw["about"])
