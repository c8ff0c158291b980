"""Checks the types of a stored result, by the annotations of :class:`RunResult` and :class:`RunSpec`.

A store may come from elsewhere, and one damaged result must not hide the others: it is named, and left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

from iadbe.types import RunResult, RunSpec

OF_THIS_MACHINE = ("place", "transient", "scores", "spec", "rows")  # not in result.json, or checked by themselves


def check(raw: Mapping[str, Any]) -> None:
    """Raise ValueError for the first field of a result.json whose value has another type. Fields may be missing."""
    if not _is_mapping(raw) or not _is_mapping(raw["spec"]):
        raise ValueError("it is no object with a spec")
    for owner, given in ((RunSpec, raw["spec"]), (RunResult, raw)):
        for name, is_right in _CHECKS[owner].items():
            if name in given and not is_right(given[name]):
                raise ValueError(f"{name} is {str(given[name])[:60]!r}")
    for row in raw["rows"]:
        if not (_is_list(row) and len(row) >= 4 and _is_int(row[0]) and _are_texts(row[1:3]) and _is_share(row[3])):
            raise ValueError(f"a row is {str(row)[:60]!r}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _is_int(value: Any) -> bool:
    return type(value) is int and -(2**63) <= value < 2**63  # what a database holds


def _is_number(value: Any) -> bool:
    return _is_int(value) or (type(value) is float and math.isfinite(value))


def _is_share(value: Any) -> bool:
    return value is None or _is_number(value) or value != value  # the last one is nan


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _are_numbers(value: Any) -> bool:
    return _is_list(value) and all(map(_is_number, value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _maps_to_ints(value: Any) -> bool:
    return _is_mapping(value) and all(map(_is_int, value.values()))


def _maps_to_numbers(value: Any) -> bool:
    return _is_mapping(value) and all(map(_is_share, value.values()))


_TYPES: dict[str, Callable[[Any], bool]] = {
    "str": _is_text,
    "int": _is_int,
    "float": _is_share,
    "tuple[str, ...]": _are_texts,
    "tuple[float, ...]": _are_numbers,
    "Mapping[str, Any]": _is_mapping,
    "Mapping[str, int]": _maps_to_ints,
    "Mapping[str, float]": _maps_to_numbers,
}
_CHECKS = {
    owner: {f.name: _TYPES[str(f.type)] for f in fields(owner) if f.name not in OF_THIS_MACHINE}
    for owner in (RunSpec, RunResult)
}
