"""Check data before it is used: `iadbe data check FOLDER` says what was found and what is wrong.

Counts for each category, split and kind of defect; sizes and kinds of picture; masks that are missing, empty or of
another size; the same picture in training and test; files that cannot be read. Exit code 1 if there are errors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import jsonargparse

from iadbe.cli import Usage
from iadbe.cli.options import parse
from iadbe.errors import did_you_mean


def run(arguments: Sequence[str]) -> int:
    """Carry out `iadbe data check`."""
    rest = list(arguments)
    if rest[:1] == ["check"]:
        rest = rest[1:]
    elif not {"-h", "--help"} & set(rest):
        hint = did_you_mean(rest[0], ["check"]) if rest else ""
        raise Usage(f"there is `iadbe data check FOLDER`.{hint}")
    if rest and not rest[0].startswith("-"):
        rest = ["--data", *rest]
    asked = parse("data check", __doc__ or "", rest, _add, ("data",), "NAME|FOLDER|FILE [options]")
    entry = asked.entry("data")
    from iadbe import inspection, sources
    from iadbe.cli import display

    dataset = sources.make(entry["name"], entry["params"])
    with display.counting("looking") as progress:
        report = inspection.check(dataset, progress)
    if asked.values["json"]:
        print(json.dumps(report.as_dict(), indent=1))
    else:
        print("\n".join([*(f"note: {note}" for note in asked.notes), *report.lines()]))
    return 0 if report.ok else 1


def _add(parser: jsonargparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print the whole report as JSON")
