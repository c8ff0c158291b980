"""The store's runs, held in memory: a page looks whether a folder has changed, and reads only what has.

The first look goes through the SQL index; after that only changed folders are read. Comparisons are made once for each
dataset and kept until one of its runs changes.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from iadbe.errors import BadData, IadbeError, UnknownName, did_you_mean
from iadbe.results.comparison import Comparison, compare
from iadbe.results.index import RunIndex, RunQuery, with_scores
from iadbe.running.store import RESULT, Store, folder_name, from_json
from iadbe.types import RunResult

FRESH = 1.0  # seconds for which a look at the folders is good
FEW = 500  # changed folders that are read one by one
KEPT = 256  # comparisons in memory
FIELDS = ("dataset", "setting", "protocol", "detector", "seed")


@dataclass(frozen=True)
class Shelved:
    """A run in memory, without its scores."""

    folder: str  # its name
    stamp: str
    result: RunResult

    @property
    def id(self) -> str:
        """The run's id, in which its folder's name ends."""
        return self.folder.rpartition("-")[2]


@dataclass(frozen=True)
class Snapshot:
    """The store at one moment."""

    runs: dict[str, Shelved] = field(default_factory=dict)  # by folder, sorted
    versions: dict[str, int] = field(default_factory=dict)  # by dataset: changes whenever one of its runs does
    damaged: dict[str, str] = field(default_factory=dict)  # by folder: one sentence
    ids: dict[str, str] = field(default_factory=dict)  # folder by run id
    _counted: dict[str, Counter[Any]] = field(default_factory=dict, repr=False, compare=False)
    _by_dataset: dict[str, list[Shelved]] = field(default_factory=dict, repr=False, compare=False)

    def counts(self, name: str) -> Counter[Any]:
        """Return by value of a field how many runs have it; of ``category``, also what they test counts. Read only."""
        if name not in self._counted:
            every = self.runs.values()
            if name == "category":
                found = Counter(t for s in every for t in {s.result.spec.task, *(row.test for row in s.result.rows)})
            else:
                found = Counter(getattr(s.result.spec, name) for s in every)
            self._counted[name] = found
        return self._counted[name]

    def about(self, dataset: str) -> list[Shelved]:
        """Return the runs about a dataset. Read only."""
        if not self._by_dataset:
            found: dict[str, list[Shelved]] = {}
            for shelved in self.runs.values():
                found.setdefault(shelved.result.spec.dataset, []).append(shelved)
            self._by_dataset.update(found)
        return self._by_dataset.get(dataset, [])


class Library:
    """What pages and API read. Safe to use from many threads."""

    def __init__(self, store: Store, url: str = "") -> None:
        self.store = store
        self._index = RunIndex(store, url)
        self._lock = threading.Lock()
        self._looked = -FRESH
        self._looks = 0
        self._stamps: dict[str, str] = {}
        self._now = Snapshot()
        self._made: OrderedDict[tuple[Any, ...], tuple[Comparison, ...]] = OrderedDict()

    def close(self) -> None:
        """Let go of the index."""
        self._index.close()

    def now(self) -> Snapshot:
        """Return the runs as they are, no older than a second."""
        with self._lock:
            if time.monotonic() - self._looked >= FRESH:
                self._look()
                self._looked = time.monotonic()
            return self._now

    def run(self, name: str) -> Shelved:
        """Return the run that an id or a folder's name means; only names that the store has are ever used as paths."""
        now = self.now()
        folder = now.ids.get(name, name)
        if folder not in now.runs:
            raise UnknownName(f"there is no run {name!r}.{did_you_mean(name, now.ids)}")
        return now.runs[folder]

    def loaded(self, name: str) -> RunResult:
        """Return a run with its scores."""
        shelved = self.run(name)
        return self.store.load(shelved.folder)

    def path(self, name: str) -> Path:
        """Return the folder of a run."""
        return self.store.root / self.run(name).folder

    def select(self, which: RunQuery) -> list[Shelved]:
        """Return the runs that are meant; :class:`UnknownName` where a wanted name is in no run."""
        now = self.now()
        self._check(now, which)
        some = [s for d in which.dataset for s in now.about(d)] if len(which.dataset) == 1 else now.runs.values()
        return [s for s in some if matches(s.result, which)]

    def comparisons(self, which: RunQuery, *, scores: bool = False) -> tuple[Comparison, ...]:
        """Return what stands side by side among the runs that are meant; to read their scores takes a while."""
        now = self.now()
        self._check(now, which)
        wanted = which.dataset or tuple(now.versions)
        return tuple(c for name in wanted for c in self._compared(now, name, which, scores))

    def choices(self, which: RunQuery | None = None) -> dict[str, list[Any]]:
        """Return by field what the runs that are meant have, sorted."""
        found: dict[str, set[Any]] = {name: set() for name in (*FIELDS, "category", "metric")}
        for shelved in self.select(which or RunQuery()):
            result = shelved.result
            for name in FIELDS:
                found[name].add(getattr(result.spec, name))
            found["category"].update({row.test for row in result.rows} or {result.spec.task})
            found["metric"].update(row.metric for row in result.rows)
        return {name: sorted(values) for name, values in found.items()}

    def _compared(self, now: Snapshot, dataset: str, which: RunQuery, scores: bool) -> tuple[Comparison, ...]:
        key = (dataset, now.versions[dataset], scores, *(getattr(which, f.name) for f in fields(which)[1:]))
        with self._lock:
            if (kept := self._made.get(key)) is not None:
                self._made.move_to_end(key)
                return kept
        here = RunQuery((dataset,), *(getattr(which, f.name) for f in fields(which)[1:]))
        results = [s.result for s in now.about(dataset) if matches(s.result, here)]
        if scores:
            results, _ = with_scores(self.store, results)
        made = compare(here.restrict(r) for r in results)
        with self._lock:
            self._made[key] = made
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
        return made

    def _check(self, now: Snapshot, which: RunQuery) -> None:
        for f in fields(which):
            if not (wanted := getattr(which, f.name)):
                continue
            known = now.counts(f.name)
            for name in wanted:
                if name not in known:
                    names = sorted(map(str, known))
                    have = f"There are: {', '.join(names[:20])}." if names else "There are no runs."
                    raise UnknownName(f"no run has the {f.name} {name!r}.{did_you_mean(str(name), names)} {have}")

    def _look(self) -> None:
        """Compare the folders with what is in memory, and read what has changed."""
        found = stamps(self.store.root)
        changed = [f for f, stamp in found.items() if self._stamps.get(f) != stamp]
        gone = [f for f in self._stamps if f not in found]
        if not changed and not gone:
            return
        runs, damaged = dict(self._now.runs), dict(self._now.damaged)
        touched = {runs[f].result.spec.dataset for f in (*changed, *gone) if f in runs}
        for folder in (*changed, *gone):
            runs.pop(folder, None)
            damaged.pop(folder, None)
        if len(changed) > FEW:
            self._index.sync()
            by_folder = _by_folder(self._index.results())
            runs |= {f: Shelved(f, found[f], by_folder[f]) for f in changed if f in by_folder}
            changed = [f for f in changed if f not in by_folder]
        for folder in changed:
            try:
                runs[folder] = Shelved(folder, found[folder], read(self.store.root / folder))
            except IadbeError as error:
                damaged[folder] = str(error)
        touched |= {runs[f].result.spec.dataset for f in found if f in runs and self._stamps.get(f) != found[f]}
        ordered = dict(sorted(runs.items()))
        self._looks += 1
        names = sorted({s.result.spec.dataset for s in ordered.values()})
        versions = {d: self._looks if d in touched else self._now.versions[d] for d in names}
        self._now = Snapshot(ordered, versions, damaged, {s.id: f for f, s in ordered.items()})
        self._stamps = found


def stamps(root: Path) -> dict[str, str]:
    """Return by name, for each folder with a result, what changes when the result does."""
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
        return from_json(json.loads((folder / RESULT).read_text(encoding="utf-8")))
    except Exception as error:  # whatever is wrong with one folder must not hide the others
        what = f"{folder.name}/{RESULT} is damaged ({type(error).__name__}: {error})"
        raise BadData(f"{what}. Remove its folder and run again.") from error


def matches(result: RunResult, which: RunQuery) -> bool:
    """Say whether a run is meant."""
    spec = result.spec
    if any(getattr(which, name) and getattr(spec, name) not in getattr(which, name) for name in FIELDS):
        return False
    wanted = which.category
    return not wanted or spec.task in wanted or any(row.test in wanted for row in result.rows)


def _by_folder(results: Sequence[RunResult]) -> dict[str, RunResult]:
    return {folder_name(r.spec): r for r in results}
