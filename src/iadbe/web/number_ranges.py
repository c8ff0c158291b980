"""Ranges of the numbers in a request, checked before anything is expanded or allocated.

A card may carry ``ranges``, for example ``ranges = {"count": (1, 10_000)}``. Other numbers have general limits, which
are far above any useful value.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from iadbe.errors import BadConfig
from iadbe.registry import Card

MAX_INT = 1_000_000  # of a whole number without a range of its own
MAX_FLOAT = 1e9
MAX_VALUES = 1000  # values in one request, all lists and mappings together
MAX_TEXT = 300  # characters of one text
MAX_DEPTH = 6  # of nested lists and mappings
SEED = (0, 2**32 - 1)
NUMBER = re.compile(r"[^\s,\[\]()]+")


def check_size(owner: str, value: Any) -> None:
    """Raise :class:`BadConfig` where a request is nested too deeply, or has too many or too large values."""
    for count, (leaf, depth) in enumerate(_leaves(value), 1):
        if depth > MAX_DEPTH:
            raise BadConfig(f"{owner} is nested too deeply; {MAX_DEPTH} levels are allowed.")
        if count > MAX_VALUES:
            raise BadConfig(f"{owner} holds too many values; {MAX_VALUES} are allowed.")
        if isinstance(leaf, str) and len(leaf) > MAX_TEXT:
            raise BadConfig(f"{owner}: a text of {len(leaf)} characters is too long; {MAX_TEXT} are allowed.")
        if isinstance(leaf, int) and leaf.bit_length() > 64:
            raise BadConfig(f"{owner}: a number of {leaf.bit_length()} bits is too large.")


def check_parameter(card: Card, name: str, value: Any) -> None:
    """Raise :class:`BadConfig` where a parameter's number, or one in its list or text, is out of range."""
    low, high = range_of(card, name)
    for leaf, _ in _leaves(value):
        for number in _numbers(leaf):
            check_number(f"{card.name}.{name}", number, low, high)


def range_of(card: Card, name: str) -> tuple[float, float]:
    """Return the range of a parameter: the card's, else the general one."""
    if name in (ranges := card.get("ranges") or {}):
        low, high = ranges[name]
        return low, high
    if name == "seed":
        return SEED
    whole = any(p.name == name and "int" in p.annotation and "float" not in p.annotation for p in card.parameters)
    return (-MAX_INT, MAX_INT) if whole else (-MAX_FLOAT, MAX_FLOAT)


def check_number(name: str, number: float, low: float, high: float) -> None:
    """Raise :class:`BadConfig` where a number is not finite or not in ``[low, high]``."""
    if not (isinstance(number, int) or math.isfinite(number)) or not low <= number <= high:
        shown = f"{number:g}" if abs(number) < 1e300 else "a number this large"
        raise BadConfig(f"{name} takes a number from {low:g} to {high:g}, not {shown}.")


def _numbers(leaf: Any) -> Iterable[float]:
    """Yield the numbers that a value means; text from a form counts, too."""
    if isinstance(leaf, (int, float)) and not isinstance(leaf, bool):
        yield leaf
    elif isinstance(leaf, str):
        for word in NUMBER.findall(leaf):
            try:
                yield int(word) if word.lstrip("+-").isdecimal() else float(word)
            except ValueError:
                continue


def _leaves(value: Any, depth: int = 0) -> Iterable[tuple[Any, int]]:
    """Yield each value with its depth, without recursion beyond the allowed one."""
    if depth > MAX_DEPTH or not isinstance(value, (Mapping, list, tuple)):
        yield value, depth
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield key, depth
            yield from _leaves(inner, depth + 1)
    else:
        for inner in value:
            yield from _leaves(inner, depth + 1)


def whole_number(text: str, digits: int = 15) -> int | None:
    """Return the number of at most ``digits`` ASCII digits, else None: ``"²".isdigit()`` is true, and not a number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None
