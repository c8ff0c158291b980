"""Look at results: `table` ranks, `show RUN` tells all of one, `export FILE` writes, `report FILE`, `rebuild` the index.

usage: iadbe results table|show RUN|export FILE|report FILE|rebuild [options]
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from iadbe import published, ranking, table
from iadbe.cli import Usage, display
from iadbe.cli.options import STORE, parse
from iadbe.errors import BadConfig
from iadbe.index import RunIndex, Which
from iadbe.store import Store
from iadbe.table import Table
from iadbe.types import RunResult

ACTIONS = ("table", "show", "export", "report", "rebuild")
SUFFIXES = {".csv": "csv", ".md": "markdown", ".tex": "latex", ".json": "json"}
FILTERS = ("dataset", "category", "setting", "protocol", "detector")


def run(arguments: Sequence[str]) -> int:
    """Carry out `iadbe results ACTION`."""
    asked = parse("results", __doc__ or "", arguments, _add)
    values = asked.values
    action, name = values["action"], values["name"]
    if action not in ACTIONS:
        raise Usage(f"results knows {', '.join(ACTIONS)}, not {action!r}.")
    if action in ("show", "export", "report") and not name:
        raise Usage(f"results {action} needs a {'run' if action == 'show' else 'file'}.")
    store = Store(values["store"])
    if action == "show":
        return _show(store, name)
    with RunIndex(store, values["database"]) as index:
        if action == "rebuild":
            print(f"{index.rebuild()} runs are in the index of {display.short(store.root)}")
            return 0
        found = index.results(_which(values))
        damaged = index.sync().damaged
    if not found:
        raise BadConfig(f"there are no runs in {store.root}. `iadbe benchmark` and `iadbe train` make some.")
    if action == "report":
        from iadbe import report

        print(report.write(store, [store.load(store.path(r.spec).name) for r in found], Path(name)))
    else:
        _out(_tables(found, values), values, name if action == "export" else "")
    for sentence in damaged:
        print(f"left out: {sentence}")
    return 0


def _which(values: dict[str, Any]) -> Which:
    given = {key: _parts(values[key]) for key in FILTERS}
    return Which(**given, seed=tuple(int(s) for s in _parts(values["seed"])))


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _tables(found: list[RunResult], values: dict[str, Any]) -> list[Table]:
    style = ranking.Style(percent=values["percent"])
    reported = published.sources() if values["reported"] else ()
    if values["runs"]:
        return [ranking.listing(found, _parts(values["metric"]) or ("image_auroc",), style)]
    if values["by"] == "category":
        metrics = _parts(values["metric"]) or ("image_auroc",)
        return [t for m in metrics for t in ranking.by_category(found, m, style, reported)]
    if values["by"]:
        raise Usage(f"--by is category, not {values['by']!r}.")
    return ranking.ranking(found, _parts(values["metric"]), style, reported)


def _out(tables: list[Table], values: dict[str, Any], file: str) -> None:
    form = values["format"]
    if file:
        form = form or SUFFIXES.get(Path(file).suffix.lower(), "")
        if not form:
            raise Usage(f"{file}: the name must end in one of {', '.join(SUFFIXES)}.")
    if form in ("", "text"):
        display.print_tables(tables)
        return
    if form not in table.FORMATS:
        raise Usage(f"--format is one of text, {', '.join(table.FORMATS)}, not {form!r}.")
    text = table.FORMATS[form](tables)
    if file:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text(text, encoding="utf-8")
        print(file)
    else:
        print(text, end="")


def _show(store: Store, name: str) -> int:
    """Print everything that is known of one run."""
    folder = store.find(name)
    raw = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    for key in ("run", "error", "spec", "seconds", "cpu_seconds", "latency_ms", "memory", "features", "weights", "environment"):
        value = raw.get(key)
        if isinstance(value, dict):
            print(f"{key}:")
            for inner, content in value.items():
                print(f"  {inner:<16}{json.dumps(content) if not isinstance(content, str) else content}")
        elif value not in ("", None):
            print(f"{key:<18}{value}")
    print("rows:")
    for step, test, metric, value in raw["rows"]:
        print(f"  {test:<16}{metric:<18}{'—' if value is None else format(value, '.4f')}" + (f"  step {step}" if step else ""))
    for note in raw["notes"]:
        print(f"note: {note}")
    print(f"folder: {display.short(folder)}")
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("action", type=str, nargs="?", default="table", metavar="ACTION", help=", ".join(ACTIONS))
    parser.add_argument("name", type=str, nargs="?", default="", metavar="RUN|FILE")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR")
    parser.add_argument("--database", type=str, default="", metavar="URL", help="of the index; SQLite in the store by default")
    for key in FILTERS:
        parser.add_argument(f"--{key}", type=str, default="", help="only these, with commas")
    parser.add_argument("--seed", type=str, default="", help="only these, with commas")
    parser.add_argument("--metric", type=str, default="", help="which metrics, with commas")
    parser.add_argument("--by", type=str, default="", help="category: one column for each category")
    parser.add_argument("--runs", action="store_true", help="list single runs")
    parser.add_argument("--reported", action="store_true", help="papers' numbers and the difference beside ours")
    parser.add_argument("--percent", action="store_true", help="percent instead of shares of 1")
    parser.add_argument("--format", type=str, default="", help="text, csv, markdown, latex or json")
