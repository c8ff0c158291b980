"""Test a model on the test split of some data.

MODEL is a model's folder, a run's folder, or the beginning of a run's id.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonargparse

from iadbe.cli import display
from iadbe.cli.options import STORE, parse
from iadbe.cli.predict import model_folder
from iadbe.metric import DEFAULT


def run(arguments: Sequence[str]) -> int:
    """Test and print the metrics of each category."""
    asked = parse("test", __doc__ or "", arguments, _add, axes=("data",))
    values = asked.values
    entry = dict(asked.entry("data"))
    from iadbe import api

    model = api.load(model_folder(values["model_folder"], values["store"]), values["device"])
    categories = entry.pop("categories", ())
    metrics = [m.strip() for m in values["metrics"].split(",")] if values["metrics"] else DEFAULT
    name = entry.pop("name")
    found = api.test(model, name, categories=categories, metrics=metrics, device=values["device"], **entry)
    if values["json"]:
        print(json.dumps({c: {k: v if v == v else None for k, v in row.items()} for c, row in found.items()}, indent=1))
    else:
        display.print_rows(f"{model.name} on {name}", found)
    return 0


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("model_folder", type=str, metavar="MODEL")
    parser.add_argument("--metrics", type=str, default="", help="with commas; see `iadbe list metrics`")
    parser.add_argument("--device", type=str, default="auto")
    parser.add_argument("--store", type=str, default=STORE, metavar="DIR", help="where run ids are looked up")
    parser.add_argument("--json", action="store_true")
