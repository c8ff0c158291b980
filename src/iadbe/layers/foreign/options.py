"""Options of another tool's model or training, as one text: ``backbone=resnet18,layers=layer2+layer3,lr=1e-3``.

A comma divides options and a plus the items of a list. A value is true, false, null, a number, or else a text.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from typing import Any

from iadbe.errors import BadConfig, UnknownName, did_you_mean

WORDS = {"true": True, "false": False, "null": None, "none": None}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


def parse_options(text: str, known: Collection[str], owner: str) -> dict[str, Any]:
    """Return options by name.

    Raises :class:`UnknownName` for a name that is not ``known``, :class:`BadConfig` for one without a value or given
    twice; ``owner`` is what has the options, for the message.
    """
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not value:
            raise BadConfig(f"options are written name=value,name=value, with + between items of a list, not {part!r}.")
        if name in found:
            raise BadConfig(f"the option {name!r} is given twice.")
        if name not in known:
            hint = did_you_mean(name, known)
            raise UnknownName(f"{owner} has no option {name!r}.{hint} It has: {', '.join(sorted(known)) or 'none'}.")
        found[name] = _value(value)
    return found


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    if NUMBER.fullmatch(text):
        return ast.literal_eval(text.lstrip("+").lstrip("0") if text.isdigit() and int(text) else text)
    if "+" in text:
        return [_value(item) for item in text.split("+") if item]
    return text
