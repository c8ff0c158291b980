"""Show one detector, dataset, setting or metric: what it is, its parameters, their types and defaults.

usage: iadbe show NAME
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from iadbe.cli import Usage
from iadbe.errors import UnknownName, did_you_mean
from iadbe.registry import SHELVES, Card, card, names

FACTS = ("paper", "year", "kind", "url", "licence", "needs", "can", "gives", "demands", "of", "paper_view", "paper_params")


def run(arguments: Sequence[str]) -> int:
    """Print a card."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    if len(arguments) != 1:
        raise Usage("show takes one name, for example `iadbe show patchcore`.")
    (name,) = arguments
    found = [card(shelf, name) for shelf in SHELVES if name in names(shelf)]
    if not found and ":" in name:
        found = [card("detectors", name)]
    if not found:
        everything = [n for shelf in SHELVES for n in names(shelf)]
        raise UnknownName(f"nothing is named {name!r}.{did_you_mean(name, everything)} See `iadbe list`.")
    print("\n\n".join(text(c) for c in found))
    return 0


def text(found: Card) -> str:
    """Return a card as text."""
    lines = [f"{found.name}  ({found.shelf[:-1]})", "", found.doc, ""]
    for fact in FACTS:
        value = found.get(fact)
        if value not in (None, "", 0, frozenset(), {}):
            lines.append(f"{fact.replace('_', ' '):<14}{_plain(value)}")
    if found.parameters:
        lines += ["", "parameters:"]
        rows = [(p.name, p.annotation, "required" if p.required else json.dumps(p.default), p.doc) for p in found.parameters]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        lines += ["  " + "  ".join([*(c.ljust(w) for c, w in zip(row, widths, strict=False)), row[3]]).rstrip() for row in rows]
    return "\n".join(lines)


def _plain(value: Any) -> str:
    if isinstance(value, (set, frozenset, tuple, list)):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items())
    return str(value)
