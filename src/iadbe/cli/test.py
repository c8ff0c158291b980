"""Test a model on the test split of some data.

MODEL is a model's folder, a run's folder, or the beginning of a run's id.

    iadbe test runs/padim-toy-cloth-vanilla-s0-0123456789ab --data mvtec_ad --data.root DIR --data.category carpet
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence

import jsonargparse

from iadbe.cli import UsageError
from iadbe.cli.legacy import model_first
from iadbe.cli.options import STORE, add_trust, parse


def run(arguments: Sequence[str]) -> int:
    """Test and print the metrics of each category."""
    form = "MODEL --data NAME|FOLDER|FILE [options]"
    request = parse("test", __doc__ or "", model_first(arguments), _add, ("data",), form)
    values = request.values
    if not values["model_folder"]:
        raise UsageError("which model? Give the folder that `iadbe train` made, or its run's id.")
    entry = request.entry("data")
    from iadbe import api
    from iadbe.cli import display
    from iadbe.cli.model_path import model_folder
    from iadbe.results.names import data_name

    for note in request.notes:
        print(f"note: {note}", file=sys.stderr)
    model = api.load(model_folder(values["model_folder"], values["store"]), values["device"])
    metrics = [m.strip() for m in values["metrics"].split(",")] if values["metrics"] else ()
    notes: list[str] = []
    found = api.test(
        model, entry["name"], categories=entry.get("categories", ()), metrics=metrics, device=values["device"],
        notes=notes, **entry["params"],
    )  # fmt: skip
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if values["json"]:
        finite = {c: {k: v if math.isfinite(v) else None for k, v in row.items()} for c, row in found.items()}
        print(json.dumps(finite, indent=1))
    else:
        name = data_name(entry["name"], entry["params"], found)
        display.print_rows(f"{model.name} on {name}", found)
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, nargs="?", default="", metavar="MODEL", help="folder, or run id")
    parser.add_argument("--metrics", type=str, default="", help="with commas; see `iadbe list metrics`")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    add_trust(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
