"""A small real benchmark, offline: five detectors on the synthetic data set, a ranked table and a report.

The detectors use the backbone that comes with IADBE. It takes a minute or two on two cores, less with --size 64; repeat
the command to resume it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jsonargparse

from iadbe import system
from iadbe.cli.options import parse
from iadbe.cli.protocol_options import add_size, protocol_of
from iadbe.errors import number_of

GRID: dict[str, Any] = {
    # padim uses all layers that the next three use, so they read their features from the feature store
    "detectors": ["padim", {"name": "patchcore", "coreset": 0.05}, "orthoad", "dfm", "dfkde"],
    "data": ["toy"],
}
JOBS = 4  # runs at a time, if there are as many cores: small runs gain little from several
COLUMNS = ("image_auroc", "pixel_auroc", "pixel_aupro")


def run(arguments: Sequence[str]) -> int:
    """Run the demo."""
    request = parse("demo", __doc__ or "", arguments, _add)
    from iadbe.cli import display, estimate
    from iadbe.running import plan, pool
    from iadbe.running.store import Store
    from iadbe.types import Options

    store = Store(request.values["out"])
    planned = plan.expand({**GRID, "protocol": protocol_of(request.values)}, store)
    count = len(planned.runs)
    runs = number_of(count, "run")
    detectors = len(GRID["detectors"])
    print(f"{runs}: {number_of(detectors, 'detector')} on each category of drawn images", file=sys.stderr)
    with display.Grid(expected=partial(estimate.mean_seconds, planned.runs, store)) as shown:
        how = Options(command=system.command_line(["iadbe", "demo", *arguments]))
        summary = pool.run_all(
            planned.runs, store, how, jobs=min(JOBS, system.cores()), retry_failed=True, listener=shown
        )
    results = pool.results(store, planned.runs, summary.transient)
    display.print_results(store, results, COLUMNS)
    from iadbe.report import page as report

    page = report.write(store, results, Path(store.root) / "report.html")
    print(f"report: {display.short(page)}")
    print("Next: iadbe train --detector patchcore --data FOLDER_OF_GOOD_IMAGES")
    return 1 if any(r.error for r in results) else 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=str, default="iadbe-demo", metavar="DIR", help="folder for results")
    add_size(parser)
