"""Show one detector, dataset, setting or metric: what it is, its parameters, their types and defaults.

usage: iadbe show NAME

NAME is a name that `iadbe list` prints, or package.module:Class for one of your own.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from iadbe.cli import UsageError, split_arguments
from iadbe.errors import UnknownName, did_you_mean
from iadbe.registry import REGISTRIES, Card, card, names, trust

FACTS = (
    *("paper", "year", "kind", "foreign", "url", "licence", "needs", "can", "gives", "demands", "of", "whole_image"),
    *("not_exportable", "not_exportable_for"),
    *("paper_view", "paper_params", "paper_by_category", "weight_files"),
)


def run(arguments: Sequence[str]) -> int:
    """Print a card; where several registries have the name, each of them."""
    words, _, _ = split_arguments("show", arguments)
    if len(words) != 1:
        raise UsageError("show takes one name, for example `iadbe show patchcore`.")
    (name,) = words
    found = [card(registry, name) for registry in REGISTRIES if name in names(registry)]
    if not found and ":" in name:
        trust(name)
        found = [card("detectors", name)]
    if not found:
        everything = [n for registry in REGISTRIES for n in names(registry)]
        raise UnknownName(f"nothing is named {name!r}.{did_you_mean(name, everything)} See `iadbe list`.")
    print("\n\n".join(text(c) for c in found))
    return 0


def text(found: Card) -> str:
    """Return a card as text."""
    parameters = {parameter.name for parameter in found.parameters}  # these are shown below
    facts = [(fact, found.get(fact)) for fact in FACTS if fact not in parameters]
    facts_shown = [
        f"{k.replace('_', ' '):<13} {_plain(v)}" for k, v in facts if v not in (None, "", 0, (), frozenset(), {})
    ]
    rows = [
        (p.name, p.annotation, "required" if p.required else json.dumps(p.default), p.doc) for p in found.parameters
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(3)] if rows else []
    table = ["  ".join([*(row[i].ljust(w) for i, w in enumerate(widths)), row[3]]).rstrip() for row in rows]
    parts = [f"{found.name}  ({found.registry[:-1]})", found.doc.strip(), "\n".join(facts_shown)]
    parts += ["\n".join(["parameters:", *(f"  {line}" for line in table)])] if table else []
    return "\n\n".join(part for part in parts if part)


def _plain(value: Any) -> str:
    if isinstance(value, (set, frozenset)):
        return ", ".join(sorted(map(str, value)))
    if isinstance(value, (tuple, list)):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{k} ({_plain(v)})" if isinstance(v, dict) else f"{k}={v}" for k, v in value.items())
    return str(value)
