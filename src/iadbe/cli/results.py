"""Look at results: rank them, show one run, export a table, write the report, rebuild the index.

`iadbe results` alone, or `table`, ranks. `export FILE` writes CSV, Markdown, LaTeX or JSON, by the file's ending, with
the best of each column in bold; a FILE.svg is the critical-difference diagram of the detectors' ranks. `report FILE`
writes one HTML file. `show RUN` prints everything about one run; RUN is the start of its id, which --runs lists.
`remove RUN`, with commas for several, removes runs. `rebuild` makes a new index of the folders.

    iadbe results --data mvtec_ad --by category --metric pixel_aupro
    iadbe results --setting shifted --by kind        # what each change of the images costs
    iadbe results export table.tex --reported --percent
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse

from iadbe import system
from iadbe.cli import UsageError
from iadbe.cli.options import STORE, parse
from iadbe.errors import BadConfig, did_you_mean

if TYPE_CHECKING:
    from iadbe.results.index import RunQuery
    from iadbe.results.style import Style
    from iadbe.results.table import Table
    from iadbe.results.table_cache import TableCache
    from iadbe.running.store import Store
    from iadbe.types import RunResult

ACTIONS = ("table", "show", "export", "report", "remove", "rebuild")
SUFFIXES = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json"}
FILTERS = {"data": "dataset", "category": "category", "setting": "setting", "protocol": "protocol"}
FILTERS |= {"detector": "detector", "seed": "seed"}  # option -> field of RunQuery
PARTS = ("run", "error", "spec", "seconds", "cpu_seconds", "latency_ms", "memory", "features", "weights", "environment")


def run(arguments: Sequence[str]) -> int:
    """Carry out `iadbe results ACTION`."""
    values = parse("results", __doc__ or "", arguments, _add, form="[ACTION] [RUN|FILE] [options]").values
    action, name = values["action"], values["name"]
    if action not in ACTIONS:
        raise UsageError(f"results takes {', '.join(ACTIONS)}, not {action!r}.{did_you_mean(action, ACTIONS)}")
    if action in ("show", "remove", "export", "report") and not name:
        raise UsageError(f"results {action} needs a {'run' if action in ('show', 'remove') else 'file'}.")
    if action in ("table", "rebuild") and name:
        raise UsageError(f"results {action} takes no {name!r}; `export FILE` writes a table to a file.")
    from iadbe.running.store import Store

    store = Store(values["store"])
    if not store.root.is_dir():
        raise BadConfig(f"there is no folder {store.root}. Give the folder of the results with --store DIR.")
    if action == "show":
        return _show(store, name)
    if action == "remove":
        from iadbe.cli import display

        for folder in [store.find(part) for part in _split(name)]:
            store.remove_folder(folder)
            print(f"removed {display.short(folder)}")
        return 0
    if action == "table" or (action == "export" and not name.lower().endswith(".svg")):
        _output(_cached_tables(store, values), values, name if action == "export" else "")
        return 0
    from iadbe.cli import display
    from iadbe.results.index import RunIndex, with_scores

    with RunIndex(store, values["database"]) as index:
        if action == "rebuild":
            if store.is_read_only and not values["database"]:
                raise BadConfig(f"{store.root} is read-only, so it has no index. Name a database with --database URL.")
            count = index.rebuild()
            print(f"{count} run{'s are' if count != 1 else ' is'} in the index of {display.short(store.root)}")
            return 0
        damaged = index.sync().damaged
        found = index.results(_query(values))
    found, unread = with_scores(store, found)
    _announce((*damaged, *unread), found, store)
    if action == "report":
        from iadbe.report import page as report

        print(report.write(store, found, Path(name), style=_style(values)))
    else:
        _image(found, values, Path(name))
    return 0


def _cached_tables(store: Store, values: dict[str, Any]) -> list[Table]:
    """Return the tables that are asked for, from the store's cache where no run has changed."""
    from iadbe.results.table_cache import TableCache

    cache = TableCache(store.root)
    asked = {k: v for k, v in values.items() if k not in ("name", "store", "config")}
    key = cache.key(asked)
    if (cached := cache.get(key)) is not None:
        tables, damaged = cached
        for sentence in damaged:
            print(f"left out: {sentence}")
        return tables
    from iadbe.results.stored_runs import collector_paused

    with collector_paused():
        by_folder, damaged = _runs(store, values, cache)
        found = list(by_folder.values())
        tables, unread = _tables(store, by_folder, values, cache) if found else ([], [])
    _announce([*damaged, *unread], found, store)
    cache.put(key, tables, [*damaged, *unread])
    return tables


def _runs(store: Store, values: dict[str, Any], cache: TableCache) -> tuple[dict[str, RunResult], list[str]]:
    """Return the runs that are asked for, by folder name, and sentences on those that cannot be read."""
    from iadbe.results.index import RunIndex
    from iadbe.results.stored_runs import stored_runs
    from iadbe.running.store import folder_name

    query = _query(values)
    known = None if values["database"] else stored_runs(store, cache.stamps)
    if known is not None and (found := known.matching(query)) is not None:
        return found, list(known.damaged)
    with RunIndex(store, values["database"]) as index:
        damaged = list(index.sync().damaged)
        return {folder_name(r.spec): r for r in index.results(query)}, damaged


def _announce(damaged: Sequence[str], found: Sequence[RunResult], store: Store) -> None:
    """Print which runs are left out; raise where none remain."""
    for sentence in damaged:
        print(f"left out: {sentence}")
    if not found:
        raise BadConfig(f"there are no such runs in {store.root}. `iadbe benchmark` and `iadbe train` make some.")


def _query(values: dict[str, Any]) -> RunQuery:
    from iadbe.results.index import RunQuery

    given: dict[str, tuple[Any, ...]] = {field: _split(values[option]) for option, field in FILTERS.items()}
    given["protocol"] = _protocols(values["protocol"])
    if not all(part.lstrip("-").isdigit() for part in given["seed"]):
        raise UsageError(f"--seed takes whole numbers, with commas, not {values['seed']!r}.")
    return RunQuery(**{**given, "seed": tuple(map(int, given["seed"]))})


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _protocols(text: str) -> tuple[str, ...]:
    """Split at the commas between protocols, not at those within a name such as uniform,pad."""
    return tuple(part.strip(" ,") for part in re.split(r",\s*(?=(?:uniform|paper)\b)", text) if part.strip(" ,"))


def _style(values: dict[str, Any]) -> Style:
    from iadbe.results.style import Style

    return Style(percent=values["percent"])


def _tables(
    store: Store, by_folder: dict[str, RunResult], values: dict[str, Any], cache: TableCache
) -> tuple[list[Table], list[str]]:
    """Return tables of runs without scores, and sentences on runs whose scores cannot be read."""
    from iadbe.results import published, ranking, shift, table_cache

    found, style, metrics = list(by_folder.values()), _style(values), _split(values["metric"])
    _check(metrics, found)
    folders = {id(run.spec): folder for folder, run in by_folder.items()}
    tables_of = partial(table_cache.tables_of, cache=cache, folder_of=lambda run: folders[id(run.spec)])
    reported = published.DEFAULT if values["reported"] else ()
    if values["runs"]:
        return [ranking.listing(found, metrics or ("image_auroc",), style)], []
    intervals = not values["no_intervals"]
    asked = [style, reported, intervals]
    if values["by"] == "category":
        tables: list[Table] = []
        unread: list[str] = []
        for metric in metrics or ("image_auroc",):
            make = partial(ranking.by_category_of, metric=metric, style=style, reported=reported, intervals=intervals)
            wanted = partial(ranking.with_metric, metric=metric)
            made = tables_of(store, found, make, ["category", metric, *asked], scores=intervals, wanted=wanted)
            tables, unread = [*tables, *made.tables], [*unread, *made.damaged]
        return tables, list(dict.fromkeys(unread))
    if values["by"] in shift.GROUPINGS:
        tables = [t for m in metrics or ("image_auroc",) for t in shift.by_shift(found, m, values["by"], style)]
        if not tables:
            raise BadConfig(f"--by {values['by']} is for runs in the setting shifted, and there are none of them.")
        return tables, []
    if values["by"]:
        raise UsageError(f"--by is one of category, {', '.join(shift.GROUPINGS)}, not {values['by']!r}.")
    if not metrics and values["action"] == "table" and values["format"] in ("", "text"):
        from iadbe.cli import display

        metrics = display.default_metrics(found)  # all would not fit a terminal
    make = partial(ranking.ranking_of, metrics=metrics, style=style, reported=reported, intervals=intervals)
    made = tables_of(store, found, make, ["ranking", metrics, *asked], scores=intervals)
    return made.tables, made.damaged


def _check(metrics: Sequence[str], found: list[RunResult]) -> None:
    from iadbe.results.comparison import compare

    if not metrics:
        return
    have = sorted({row.metric for result in found for row in result.rows})
    have += [m for m in dict.fromkeys(m for c in compare(found) for m in c.metrics) if m not in have]  # mAD
    for metric in metrics:
        if metric not in have:
            raise BadConfig(f"no run has {metric!r}.{did_you_mean(metric, have)} There are: {', '.join(have)}.")


def _image(found: list[RunResult], values: dict[str, Any], file: Path) -> None:
    """Write the critical-difference diagram of one comparison."""
    from iadbe.report.page import rank_image
    from iadbe.results.comparison import compare

    metrics = _split(values["metric"])
    _check(metrics, found)
    comparisons = compare(found)
    if len(comparisons) > 1:
        titles = "; ".join(c.title for c in comparisons)
        raise UsageError(
            f"one image shows one comparison, and there are {len(comparisons)}: {titles}. Choose with --data."
        )
    text = rank_image(comparisons[0], (*metrics, *comparisons[0].metrics)[0])
    file = file.expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    print(file)


def _output(tables: list[Table], values: dict[str, Any], file: str) -> None:
    from iadbe.cli.table_output import print_tables
    from iadbe.results import table

    form = values["format"]
    if file:
        form = form or SUFFIXES.get(Path(file).suffix.lower(), "")
        if not form:
            raise UsageError(f"{file}: the name must end in one of {', '.join(SUFFIXES)}, .svg.")
    if form in ("", "text") and not file:
        print_tables(tables)
        return
    if form not in table.FORMATS:
        raise UsageError(f"--format is one of text, {', '.join(table.FORMATS)}, not {form!r}.")
    text = table.FORMATS[form](tables)
    if file:
        path = system.user_path(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(file)
    else:
        print(text, end="")


def _show(store: Store, name: str) -> int:
    """Print everything that is stored of one run."""
    from iadbe.cli import display

    folder = store.find(name)
    raw = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for key in PARTS:
        value = raw.get(key)
        if isinstance(value, dict):
            print(f"{key.replace('_', ' ')}:")
            for inner, content in value.items():
                print(f"  {inner:<18}{content if isinstance(content, str) else json.dumps(content)}")
        elif value not in ("", None):
            print(f"{key.replace('_', ' '):<20}{value}")
    print("rows:" if raw["rows"] else "rows: none")
    for step, test, metric, value in raw["rows"]:
        number = "—" if value is None else format(value, ".4f")
        print(f"  {test:<18}{metric:<18}{number}" + (f"  step {step}" if step else ""))
    for note in raw["notes"]:
        print(f"note: {note}")
    print(f"folder: {display.short(folder)}")
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("action", type=str, nargs="?", default="table", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("name", type=str, nargs="?", default="", metavar="RUN|FILE", help="of an action")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--database", type=str, default="", metavar="URL", help="of the index; else SQLite in the store"
    )
    group = parser.add_argument_group("which runs; all with commas")
    for option in FILTERS:
        group.add_argument(f"--{option}", type=str, default="", metavar="A,B,…", help="only these")
    group = parser.add_argument_group("how they are shown")
    group.add_argument("--metric", type=str, default="", metavar="A,B,…", help="which metrics; all by default")
    group.add_argument(
        "--by", type=str, default="", metavar="WHAT", help="category; in shifted also kind, strength, change"
    )
    group.add_argument("--runs", action="store_true", help="list single runs")
    group.add_argument("--reported", action="store_true", help="papers' numbers and the difference beside ours")
    group.add_argument("--no-intervals", action="store_true", help="leave out intervals, which take a moment")
    group.add_argument("--percent", action="store_true", help="percent instead of shares of 1")
    group.add_argument("--format", type=str, default="", metavar="FORM", help="text, csv, markdown, latex or json")
