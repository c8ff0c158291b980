"""The digests under which a store knows data: runs of earlier versions keep their place and count as done.

Version 0.1 made one digest of all categories below a root, today each task has one of its own categories. Both are part
of a run's identity. So a store keeps, in ``data.json``, the digest of its own runs for each of today's digests.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from iadbe import system
from iadbe.dataset import Dataset
from iadbe.running.store import Store
from iadbe.types import RunSpec

FILE = "data.json"
PLACE = "digest"  # in RunSpec.place: today's digest, where the store has another one


class DataDigests:
    """The digests of a store, by today's."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.known = read(store.root)
        self._stored: dict[tuple[str, str], frozenset[str]] = {}

    def adopted(self, spec: RunSpec, whole: Callable[[], str]) -> RunSpec:
        """Return the spec with the digest under which the store has runs on this data; ``whole`` gives version 0.1's.

        The first digest that is found stays, so that runs on the same data stand in the same tables.
        """
        if spec.data not in self.known:
            stored = self._digests_of(spec.dataset, spec.task)
            found = next((d for d in (lambda: spec.data, whole) if stored and d() in stored), None)
            if found is None:
                return spec
            self.known[spec.data] = found()
            self._write()
        data = self.known[spec.data]
        return spec if data == spec.data else replace(spec, data=data, place={**spec.place, PLACE: spec.data})

    def _digests_of(self, dataset: str, task: str) -> frozenset[str]:
        key = (dataset, task)
        if key not in self._stored:
            self._stored[key] = self.store.digests_of(dataset, task)
        return self._stored[key]

    def _write(self) -> None:
        """Write the file whole or not at all; in a store that cannot be written, it is found anew next time."""
        part = self.store.root / f".{FILE}.{os.getpid()}.part"
        with suppress(OSError):
            part.write_text(json.dumps(self.known, indent=1, sort_keys=True) + "\n", encoding="utf-8")
            system.replace(part, self.store.root / FILE)


def read(root: Path) -> dict[str, str]:
    """Return today's digest -> the store's, from its file; nothing where there is none."""
    try:
        found = json.loads((root / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}


def is_data_of(spec: RunSpec, dataset: Dataset, categories: Collection[str], known: Mapping[str, str] = {}) -> bool:
    """Return whether a dataset's files are those that a run was planned with; a spec without a digest says nothing."""
    wanted = {spec.place.get(PLACE, spec.data), spec.data}
    if wanted == {""}:
        return True
    todays = {dataset.digest(categories), dataset.digest()}
    return bool(wanted & (todays | {known.get(d, d) for d in todays})) or dataset.whole_digest() in wanted
