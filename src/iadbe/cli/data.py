"""Check data before it is used: `iadbe data check FOLDER` says what was found and what is wrong.

Counts for each category, split and kind of defect; sizes and kinds of picture; masks that are missing, empty or of
another size; the same picture in training and test; files that cannot be read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonargparse

from iadbe import inspection, sources
from iadbe.cli import Usage, display
from iadbe.cli.options import parse
from iadbe.parameters import complete
from iadbe.registry import card


def run(arguments: Sequence[str]) -> int:
    """Carry out `iadbe data check`; exit code 1 if there are errors."""
    rest = list(arguments)
    if rest[:1] == ["check"]:
        rest = rest[1:]
    elif not rest or not {"-h", "--help"} & set(rest):
        raise Usage("there is `iadbe data check FOLDER`.")
    if rest and not rest[0].startswith("-"):
        rest = ["--data", *rest]
    asked = parse("data check", __doc__ or "", rest, _add, axes=("data",))
    entry = {k: v for k, v in asked.entry("data").items() if k != "categories"}
    dataset = sources.make(entry.pop("name"), complete(card("datasets", asked.entry("data")["name"]), entry))
    with display.counting("looking") as progress:
        report = inspection.check(dataset, progress)
    if asked.values["json"]:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        print("\n".join([*asked.notes, *report.lines()]))
    return 0 if report.ok else 1


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
