"""In-memory cache of the store's runs. A request checks which folders have changed and reads only those.

The first read goes through the SQL index. Comparisons are cached for each dataset until one of its runs changes.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from iadbe.errors import BadData, IadbeError, UnknownName, did_you_mean
from iadbe.results.comparison import Comparison, compare
from iadbe.results.index import RunIndex, RunQuery
from iadbe.results.run_cases import RunCases, read_cases
from iadbe.results.stored_runs import collector_paused
from iadbe.running import result_fields
from iadbe.running.store import RESULT, Store, folder_name, from_json
from iadbe.types import RunResult

MAX_AGE = 1.0  # seconds after which the folders are checked again
READ_ONE_BY_ONE = 500  # with more changed folders than this, the SQL index is used
MAX_SCORED = 20_000  # runs whose scores are in memory, as arrays
MAX_COMPARISONS = 256  # cached results of compare()
FIELDS = ("dataset", "setting", "protocol", "detector", "seed")

T = TypeVar("T")


@dataclass(frozen=True)
class CachedRun:
    """A run in memory, without its scores."""

    folder: str  # name of its folder
    stamp: str
    result: RunResult

    @property
    def id(self) -> str:
        """The run's id: the end of its folder's name."""
        return self.folder.rpartition("-")[2]


@dataclass(frozen=True)
class Snapshot:
    """The store at one moment."""

    runs: dict[str, CachedRun] = field(default_factory=dict)  # by folder, sorted
    versions: dict[str, int] = field(default_factory=dict)  # by dataset: changes whenever one of its runs does
    damaged: dict[str, str] = field(default_factory=dict)  # folder -> one sentence
    ids: dict[str, str] = field(default_factory=dict)  # run id -> folder
    _made: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def once(self, name: str, make: Callable[[], T]) -> T:
        """Return what ``make`` makes of this snapshot's runs alone; it is called once for each name. Read only."""
        if name not in self._made:
            self._made[name] = make()
        found: T = self._made[name]
        return found

    def counts(self, name: str) -> Counter[Any]:
        """Return how many runs have each value of a field. ``category`` includes the tests of a run. Read only."""
        return self.once(f"counts of {name}", lambda: self._counted(name))

    def runs_on(self, dataset: str) -> list[CachedRun]:
        """Return the runs on a dataset. Read only."""
        return self.once("runs by dataset", self._by_dataset).get(dataset, [])

    def _counted(self, name: str) -> Counter[Any]:
        every = self.runs.values()
        if name == "category":
            return Counter(t for s in every for t in {s.result.spec.task, *(row.test for row in s.result.rows)})
        return Counter(getattr(s.result.spec, name) for s in every)

    def _by_dataset(self) -> dict[str, list[CachedRun]]:
        found: dict[str, list[CachedRun]] = {}
        for cached in self.runs.values():
            found.setdefault(cached.result.spec.dataset, []).append(cached)
        return found


class RunCache:
    """Runs and comparisons for the API and the pages. Thread-safe."""

    def __init__(self, store: Store, url: str = "") -> None:
        self.store = store
        self._index = RunIndex(store, url)
        self._lock = threading.Lock()
        self._checked_at = -MAX_AGE
        self._generation = 0
        self._stamps: dict[str, str] = {}
        self._snapshot = Snapshot()
        self._scores: OrderedDict[str, tuple[str, RunCases]] = OrderedDict()  # folder -> (stamp, scores)
        self._comparisons: OrderedDict[tuple[Any, ...], tuple[Comparison, ...]] = OrderedDict()

    def close(self) -> None:
        """Close the index."""
        self._index.close()

    def now(self) -> Snapshot:
        """Return the current runs, at most a second old."""
        with self._lock:
            if time.monotonic() - self._checked_at >= MAX_AGE:
                self._refresh()
                self._checked_at = time.monotonic()
            return self._snapshot

    def run(self, name: str) -> CachedRun:
        """Return a run by its id or folder name. Only names found in the store are ever used as paths."""
        now = self.now()
        folder = now.ids.get(name, name)
        if folder not in now.runs:
            raise UnknownName(f"there is no run {name!r}.{did_you_mean(name, now.ids)}")
        return now.runs[folder]

    def loaded(self, name: str) -> RunResult:
        """Return a run with its scores."""
        cached = self.run(name)
        return self.store.load(cached.folder)

    def path(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.store.root / self.run(name).folder

    def select(self, which: RunQuery) -> list[CachedRun]:
        """Return the runs that match. Raises :class:`UnknownName` where no run has one of the names."""
        now = self.now()
        self._check(now, which)
        some = [s for d in which.dataset for s in now.runs_on(d)] if len(which.dataset) == 1 else now.runs.values()
        return matching(some, which)

    def comparisons(
        self, which: RunQuery, *, scores: bool = False, check: Callable[[], None] = lambda: None
    ) -> tuple[Comparison, ...]:
        """Return the comparisons of the runs that match; with ``scores``, their scores are read, which is slower.

        ``check`` is called before each run whose scores are read; it may raise.
        """
        now = self.now()
        self._check(now, which)
        names = which.dataset or tuple(now.versions)
        return tuple(c for name in names for c in self._compared(now, name, which, scores, check))

    def choices(self, which: RunQuery | None = None) -> dict[str, list[Any]]:
        """Return by field the sorted values of the runs that match."""
        if which is None or which == RunQuery():
            now = self.now()
            return now.once("choices", lambda: _choices(now.runs.values()))
        return _choices(self.select(which))

    def _compared(
        self, now: Snapshot, dataset: str, which: RunQuery, scores: bool, check: Callable[[], None]
    ) -> tuple[Comparison, ...]:
        key = (dataset, now.versions[dataset], scores, *(getattr(which, f.name) for f in fields(which)[1:]))
        with self._lock:
            if (kept := self._comparisons.get(key)) is not None:
                self._comparisons.move_to_end(key)
                return kept
        query = RunQuery((dataset,), *(getattr(which, f.name) for f in fields(which)[1:]))
        found = matching(now.runs_on(dataset), query)
        if scores:
            made = self._compared_scores(found, query, check)
        else:
            made = compare(query.restrict(s.result) for s in found)
        with self._lock:
            self._comparisons[key] = made
            while len(self._comparisons) > MAX_COMPARISONS:
                self._comparisons.popitem(last=False)
        return made

    def _compared_scores(
        self, found: Sequence[CachedRun], query: RunQuery, check: Callable[[], None]
    ) -> tuple[Comparison, ...]:
        cases: dict[int, RunCases] = {}  # by identity of the run's spec, which the cached run keeps alive
        results = []
        for cached in found:
            check()
            if (own := self._cases(cached)) is not None:
                spec = cached.result.spec
                wanted = set(own) if not query.category or spec.task in query.category else {*query.category}
                cases[id(spec)] = {test: case for test, case in own.items() if test in wanted}
                results.append(query.restrict(cached.result))
        return compare(results, lambda run: cases[id(run.spec)])

    def _cases(self, cached: CachedRun) -> RunCases | None:
        """Return a run's scores, which are read once; None where they cannot be read."""
        with self._lock:
            stamp, cases = self._scores.pop(cached.folder, ("", None))
        if cases is None or stamp != cached.stamp:
            try:
                cases = {} if cached.result.error else read_cases(self.store, cached.folder)
            except IadbeError:
                return None
        with self._lock:
            self._scores[cached.folder] = (cached.stamp, cases)
            while len(self._scores) > MAX_SCORED:
                self._scores.popitem(last=False)
        return cases

    def _check(self, now: Snapshot, which: RunQuery) -> None:
        for f in fields(which):
            if not (names := getattr(which, f.name)):
                continue
            known = now.counts(f.name)
            for name in names:
                if name not in known:
                    names = sorted(map(str, known))
                    have = f"There are: {', '.join(names[:20])}." if names else "There are no runs."
                    raise UnknownName(f"no run has the {f.name} {name!r}.{did_you_mean(str(name), names)} {have}")

    def _refresh(self) -> None:
        """Read the folders that have changed since the last call."""
        found = stamps(self.store.root)
        changed = [f for f, stamp in found.items() if self._stamps.get(f) != stamp]
        gone = [f for f in self._stamps if f not in found]
        if not changed and not gone:
            return
        runs, damaged = dict(self._snapshot.runs), dict(self._snapshot.damaged)
        changed_datasets = {runs[f].result.spec.dataset for f in (*changed, *gone) if f in runs}
        for folder in (*changed, *gone):
            runs.pop(folder, None)
            damaged.pop(folder, None)
        if len(changed) > READ_ONE_BY_ONE:
            with collector_paused():
                self._index.sync()
                by_folder = _by_folder(self._index.results())
                runs |= {f: CachedRun(f, found[f], by_folder[f]) for f in changed if f in by_folder}
            changed = [f for f in changed if f not in by_folder]
        for folder in changed:
            try:
                runs[folder] = CachedRun(folder, found[folder], read(self.store.root / folder))
            except IadbeError as error:
                damaged[folder] = str(error)
        changed_datasets |= {
            runs[f].result.spec.dataset for f in found if f in runs and self._stamps.get(f) != found[f]
        }
        ordered = dict(sorted(runs.items()))
        self._generation += 1
        names = sorted({s.result.spec.dataset for s in ordered.values()})
        versions = {d: self._generation if d in changed_datasets else self._snapshot.versions[d] for d in names}
        self._snapshot = Snapshot(ordered, versions, damaged, {s.id: f for f, s in ordered.items()})
        self._stamps = found


def stamps(root: Path) -> dict[str, str]:
    """Return by name, for each folder with a result, modification time and size of the result file."""
    if not root.is_dir():
        return {}
    with os.scandir(root) as entries:
        names = sorted(e.name for e in entries if not e.name.startswith(".") and e.is_dir())
    found = {}
    for name in names:
        try:
            status = os.stat(f"{root}/{name}/{RESULT}")
        except OSError:
            continue
        found[name] = f"{status.st_mtime_ns}-{status.st_size}"
    return found


def read(folder: Path) -> RunResult:
    """Read a run without its scores."""
    try:
        raw = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        result_fields.check(raw)
        return from_json(raw)
    except Exception as error:  # one damaged folder must not hide the others
        what = f"{folder.name}/{RESULT} is damaged ({type(error).__name__}: {error})"
        raise BadData(f"{what}. Remove its folder and run again.") from error


def matching(runs: Iterable[CachedRun], which: RunQuery) -> list[CachedRun]:
    """Return the runs that match a query, in their order."""
    found = list(runs)
    for name in FIELDS:
        if wanted := frozenset(getattr(which, name)):
            found = [s for s in found if getattr(s.result.spec, name) in wanted]
    if tests := frozenset(which.category):
        found = [s for s in found if s.result.spec.task in tests or any(row.test in tests for row in s.result.rows)]
    return found


def _by_folder(results: Sequence[RunResult]) -> dict[str, RunResult]:
    return {folder_name(r.spec): r for r in results}


def _choices(runs: Iterable[CachedRun]) -> dict[str, list[Any]]:
    found: dict[str, set[Any]] = {name: set() for name in (*FIELDS, "category", "metric")}
    for cached in runs:
        result = cached.result
        for name in FIELDS:
            found[name].add(getattr(result.spec, name))
        found["category"].update({row.test for row in result.rows} or {result.spec.task})
        found["metric"].update(row.metric for row in result.rows)
    return {name: sorted(values) for name, values in found.items()}
