"""Fit a detector on good pictures, test it, keep the model.

One run for each category of the data. What is already in the store is not done again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import jsonargparse

from iadbe import plan, pool
from iadbe.cli import display
from iadbe.cli.options import AXES, add_running, add_spec, options_of, parse, protocol_of
from iadbe.errors import BadConfig
from iadbe.store import Store
from iadbe.types import RunSpec


def run(arguments: Sequence[str]) -> int:
    """Train; exit code 1 if a run failed."""
    asked = parse("train", __doc__ or "", arguments, _add, AXES)
    values = asked.values
    grid = {
        "detectors": [asked.entry("detector")],
        "data": [asked.entry("data")],
        "settings": [asked.entry("setting")],
        "seeds": [values["seed"]],
        "protocol": protocol_of(values),
    }
    if values["metrics"]:
        grid["metrics"] = [m.strip() for m in values["metrics"].split(",")]
    planned = plan.expand(grid)
    for note in dict.fromkeys((*asked.notes, *planned.notes)):
        print(note, file=sys.stderr)
    if not planned.runs:
        raise BadConfig("nothing can be trained. " + " ".join(f"{skip}." for skip in planned.skipped))
    store = Store(values["store"])
    for spec in planned.runs:
        if not _has_model(store, spec):
            store.remove(spec)  # it was made without keeping its model
    options = options_of(values, keep_model=True)
    with display.Grid() as shown:
        pool.run_all(
            planned.runs, store, options, executor=values["executor"], jobs=values["jobs"],
            scheduler=values["scheduler"], retry_failed=values["retry"], listener=shown,
        )  # fmt: skip
    results = [store.load(store.path(s).name) for s in planned.runs]
    display.print_results(store, results, folders=True)
    good = [r for r in results if not r.error]
    if good:
        print(f"\nNext: iadbe predict {display.short(store.path(good[0].spec))} PICTURES --out heat")
    return 0 if len(good) == len(results) else 1


def _has_model(store: Store, spec: RunSpec) -> bool:
    """Say whether a run need not be done again: it has its model, or it failed, which --retry is for."""
    if not store.has(spec):
        return True
    return (store.path(spec) / "model").is_dir() or bool(store.load(store.path(spec).name).error)


def _add(parser: jsonargparse.ArgumentParser) -> None:
    add_spec(parser)
    add_running(parser)
