"""Fit a detector on good images, test it, keep the model.

One run for each category of the data. What is already in the store is not done again, unless it failed. Training that
was interrupted goes on from its last checkpoint.

    iadbe train --detector patchcore --data my/good/parts
    iadbe train --detector padim --detector.dims 50 --data mvtec_ad --data.root DIR --data.category bottle,cable
    iadbe train --detector anomalib.models.Padim --data custom_dataset.yaml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

import jsonargparse

from iadbe.cli.options import AXES, add_running, add_spec, add_trust, options_of, parse
from iadbe.cli.protocol_options import protocol_of
from iadbe.errors import BadConfig


def run(arguments: Sequence[str]) -> int:
    """Train; exit code 1 if a run failed."""
    request = parse("train", __doc__ or "", arguments, _add, AXES, "--detector NAME --data NAME|FOLDER|FILE [options]")
    values = request.values
    options = options_of(values, keep_model=True)
    grid: dict[str, Any] = {
        "detectors": [request.entry("detector")],
        "data": [request.entry("data")],
        "settings": [request.entry("setting")],
        "seeds": [values["seed"]],
        "protocol": protocol_of(values),
    }
    if values["metrics"]:
        grid["metrics"] = [m.strip() for m in values["metrics"].split(",")]
    from iadbe.cli import display, estimate
    from iadbe.running import code_digest, plan, pool
    from iadbe.running.store import Store

    store = Store(values["store"])
    planned = plan.expand(grid, store)
    for note in dict.fromkeys((*request.notes, *planned.notes)):
        print(f"note: {note}", file=sys.stderr)
    if not planned.runs:
        raise BadConfig("nothing can be trained. " + " ".join(dict.fromkeys(f"{s}." for s in planned.skipped)))
    for spec in planned.runs:
        if store.has(spec) and (values["force"] or not (store.path(spec) / "model").is_dir()):
            store.remove(spec, training=values["force"])  # it failed, or its model was not kept
    stored = [store.load(store.path(spec).name) for spec in planned.runs if store.has(spec)]
    for note in code_digest.changed(stored):
        print(f"note: {note}", file=sys.stderr)
    with display.Grid(expected=partial(estimate.mean_seconds, planned.runs, store)) as shown:
        summary = pool.run_all(
            planned.runs, store, options, executor=values["executor"], jobs=values["jobs"],
            scheduler=values["scheduler"], retry_failed=True, listener=shown,
        )  # fmt: skip
    results = pool.results(store, planned.runs, summary.transient)
    display.print_trained(store, results, planned.notes)
    return 1 if any(r.error for r in results) else 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    add_spec(parser)
    parser.add_argument("--force", action="store_true", help="train again what the store has")
    add_running(parser)
    add_trust(parser)
