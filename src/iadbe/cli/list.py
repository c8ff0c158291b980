"""List what there is: detectors, datasets, settings, metrics or backbones.

usage: iadbe list [detectors|datasets|settings|metrics|backbones] [--json]
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Sequence
from typing import Any

from iadbe.errors import BadConfig, did_you_mean
from iadbe.registry import SHELVES, Card, card, names

SHELF_NAMES = (*SHELVES, "backbones")


def run(arguments: Sequence[str]) -> int:
    """Print a shelf, or all of them."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    wanted = [a for a in arguments if not a.startswith("-")] or list(SHELF_NAMES)
    found = {}
    for shelf in wanted:
        shelf = shelf if shelf in SHELF_NAMES else f"{shelf}s"
        if shelf not in SHELF_NAMES:
            raise BadConfig(
                f"there is no shelf {shelf[:-1]!r}.{did_you_mean(shelf[:-1], SHELF_NAMES)} "
                f"There are: {', '.join(SHELF_NAMES)}."
            )
        found[shelf] = _backbones() if shelf == "backbones" else [_row(card(shelf, name)) for name in names(shelf)]
    if "--json" in arguments:
        print(json.dumps(found if len(found) > 1 else next(iter(found.values())), indent=1))
    else:
        print("\n\n".join(_text(shelf, rows) for shelf, rows in found.items()))
    return 0


def _row(found: Card) -> dict[str, Any]:
    """Return what a shelf's table says of one thing."""
    row: dict[str, Any] = {"name": found.name}
    if found.shelf == "detectors":
        row |= {"year": found.get("year") or "", "kind": found.get("kind", ""), "can": sorted(found.get("can", ()))}
    elif found.shelf == "datasets":
        row |= {"gives": sorted(found.get("gives", ())), "licence": found.get("licence", "")}
    elif found.shelf == "settings":
        row |= {"demands": sorted(found.get("demands", ()))}
    elif found.shelf == "metrics":
        row |= {"of": sorted(found.get("of", ()))}
    return row | {"what": found.summary, "paper": found.get("paper", "")}


def _backbones() -> list[dict[str, Any]]:
    """Return the embedded backbone and those in the local caches, by the names of files alone."""
    from iadbe.cli.weights import on_this_machine

    rows = on_this_machine()
    has_timm = importlib.util.find_spec("timm") is not None
    more = "any of timm's models by name, with weights=FILE, weights=none or from the network" if has_timm else ""
    return [*rows, {"name": "…", "what": more}]


def _text(shelf: str, rows: list[dict[str, Any]]) -> str:
    """Lay rows out in columns; the paper is left to `iadbe show`."""
    import shutil

    columns = [key for key in rows[0] if key not in ("paper", "what")]
    cells = [[_cell(row.get(key, "")) for key in columns] for row in rows]
    widths = [max(len(c) for c in column) for column in zip(columns, *cells, strict=True)]
    room = max(30, shutil.get_terminal_size((120, 24)).columns - sum(widths) - 2 * len(widths)) if sys.stdout.isatty() else 999
    lines = ["  ".join(c.ljust(w) for c, w in zip([shelf[:-1], *columns[1:]], widths, strict=True)).rstrip()]
    for row, cell in zip(rows, cells, strict=True):
        what = str(row.get("what", ""))
        what = what if len(what) <= room else what[: room - 1] + "…"
        lines.append("  ".join([*(c.ljust(w) for c, w in zip(cell, widths, strict=True)), what]).rstrip())
    return "\n".join(lines)


def _cell(value: Any) -> str:
    return ", ".join(value) if isinstance(value, (list, tuple)) else str(value)
