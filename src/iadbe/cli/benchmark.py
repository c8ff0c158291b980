"""Compare detectors: plan a grid, carry out missing runs, rank. Repeat the command to resume.

A grid is a YAML file:

    detectors: [patchcore, {name: padim, dims: 50}, {name: dfm, sweep: {variance: [0.9, 0.99]}}]
    data: [toy, {name: mvtec_ad, root: DIR, categories: [bottle]}, my/folder]
    settings: [vanilla, {name: few_shot, k: 4}]
    seeds: [0, 1, 2]
    protocol: uniform
    budget: 10m

Only detectors and data are needed. The plan is printed first: how many runs, how many of them are done, what is skipped
and why. Exit code 1 if a run failed.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import add_running, add_trust, options_of, parse
from iadbe.cli.protocol_options import add_protocol, is_given, protocol_of
from iadbe.errors import BadConfig, number_of

if TYPE_CHECKING:
    from iadbe.running.plan import Plan
    from iadbe.running.store import Store

AXES = ("detectors", "data", "settings", "metrics")


def run(arguments: Sequence[str]) -> int:
    """Benchmark; exit code 1 if a run failed, or if there is nothing to run."""
    request = parse("benchmark", __doc__ or "", arguments, _add, form="GRID.yaml [options]")
    values = request.values
    options = options_of(values, keep_model=values["keep_models"])
    from iadbe.cli import display, estimate
    from iadbe.running import plan, pool
    from iadbe.running.store import Store

    store = Store(values["store"])
    planned = plan.expand(_grid(values), store)
    print_plan(planned, store)
    if values["dry_run"]:
        print("\n".join(estimate.lines(planned.runs, store)))
        return 0
    if not planned.runs:
        raise BadConfig("there is nothing to run.")
    expected = partial(estimate.mean_seconds, planned.runs, store)
    with display.Grid(shows_done=False, expected=expected) as shown:
        summary = pool.run_all(
            planned.runs, store, options, executor=values["executor"], jobs=values["jobs"],
            scheduler=values["scheduler"], retry_failed=values["retry"], listener=shown,
        )  # fmt: skip
    results = pool.results(store, planned.runs, summary.transient)
    display.print_results(store, results)
    from iadbe.report import page as report

    if store.is_read_only and not values["report"]:
        print(f"no report: {store.root} is read-only. Name a file with --report FILE.", file=sys.stderr)
    elif lasting := [r for r in results if not r.transient]:
        file = Path(values["report"] or store.root / "report.html")
        page = report.write(store, lasting, file, skipped=[str(s) for s in planned.skipped])
        print(f"report: {display.short(page)}")
    return 1 if any(r.error for r in results) else 0


def print_plan(planned: Plan, store: Store) -> None:
    """Print how many runs there are, how many are done, and what is skipped and why."""
    from iadbe.running import code_digest

    found = [store.load(store.path(spec).name) for spec in planned.runs if store.has(spec)]
    failed = sum(bool(result.error) for result in found)
    done = f"{len(found)} of them done" + (f" ({failed} failed; --retry runs them again)" if failed else "")
    count = len(planned.runs)
    print(f"{number_of(count, 'run')}, {done}, {len(planned.skipped)} skipped", file=sys.stderr)
    for reason, skips in groupby(sorted(planned.skipped, key=lambda s: s.reason), key=lambda s: s.reason):
        what = [s.what for s in skips]
        more = f" and {len(what) - 3} more" if len(what) > 3 else ""
        print(f"  skipped: {'; '.join(what[:3])}{more}: {reason}", file=sys.stderr)
    for note in dict.fromkeys((*planned.notes, *code_digest.changed(found))):
        print(f"  note: {note}", file=sys.stderr)


def _grid(values: dict[str, Any]) -> dict[str, Any]:
    """Read the grid's file; options replace its axes."""
    from iadbe.running import plan

    grid = plan.read(system.user_path(values["grid"])) if values["grid"] else {}
    for key in AXES:
        if values[key]:
            grid[key] = [part.strip() for part in values[key].split(",") if part.strip()]
    if values["seeds"]:
        grid["seeds"] = [part.strip() for part in values["seeds"].split(",") if part.strip()]
    if is_given(values):
        given = values["protocol"] or str(grid.get("protocol", "uniform"))
        grid["protocol"] = protocol_of({**values, "protocol": given})
    if not grid:
        raise UsageError("which grid? Give a YAML file, or --detectors and --data. See `iadbe benchmark --help`.")
    return grid


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("grid", type=str, nargs="?", default="", metavar="GRID.yaml", help="what to compare")
    group = parser.add_argument_group("instead of a file, or over it; all with commas")
    group.add_argument("--detectors", type=str, default="", metavar="A,B,…", help="see `iadbe list detectors`")
    group.add_argument("--data", type=str, default="", metavar="A,B,…", help="names, folders or YAML files")
    group.add_argument("--settings", type=str, default="", metavar="A,B,…", help="see `iadbe list settings`")
    group.add_argument("--seeds", type=str, default="", metavar="0,1,…", help="each is a run of its own")
    group.add_argument("--metrics", type=str, default="", metavar="A,B,…", help="see `iadbe list metrics`")
    add_protocol(group, "")
    parser.add_argument("--dry-run", action="store_true", help="only list the runs, and how long they may take")
    parser.add_argument("--retry", action="store_true", help="run again what failed before")
    parser.add_argument("--report", type=str, default="", metavar="FILE", help="HTML; else report.html in the store")
    parser.add_argument("--keep-models", action="store_true", help="keep every fitted detector")
    add_running(parser)
    add_trust(parser)
