"""Checks and completes the parameters of any class of a registry, from its card alone: nothing is imported.

The command line, grids, Python calls and result files all use it. So a wrong name or type gives the same message
everywhere, and a run's identity always holds every default.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

from iadbe import system
from iadbe.errors import BadConfig, UnknownName, did_you_mean
from iadbe.registry import Card, Parameter, card, names

_WORDS = {
    "int": ("a whole number", "whole numbers", "1,2,3"),
    "float": ("a number", "numbers", "0.1,0.5"),
    "str": ("a text", "texts", "a,b"),
    "bool": ("true or false", "true or false", "true,false"),
    "None": ("null", "null", "null"),
}
_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple, "list": list, "dict": dict}


def complete(card: Card, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of ``card`` as plain values: the given ones checked, the others their defaults.

    Raises :class:`UnknownName` for a parameter that does not exist and :class:`BadConfig` for a wrong type.
    """
    known = {p.name: p for p in card.parameters}
    given = _renamed(card, given)
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or (f" It has: {', '.join(known)}." if known else " It has none.")
            raise UnknownName(f"{card.name} has no parameter {name!r}.{hint} See `iadbe show {card.name}`.")
    if lacking := [p.name for p in card.parameters if p.required and p.name not in given]:
        raise BadConfig(f"{card.name} needs {', '.join(lacking)}. See `iadbe show {card.name}`.")
    checked = {name: _checked(card.name, known[name], value) for name, value in given.items()}
    return {p.name: checked.get(p.name, plain(p.default)) for p in card.parameters}


def current_names(registry: str, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters, which an earlier version may have written, under the names and values of today.

    Parameters of later versions get the value that stands for the earlier behaviour.
    """
    if name not in names(registry):
        return dict(params)
    added, renamed = _history(registry, name)
    given = _renamed(card(registry, name), params) if renamed else params
    return {**added, **given}


@cache
def _history(registry: str, name: str) -> tuple[dict[str, Any], bool]:
    """Return the parameters of later versions, and whether any has another name or value today.

    A store of thousands of runs asks for few detectors, data sets and settings again and again.
    """
    own = card(registry, name)
    return plain(own.get("added", {})), bool(own.get("renamed") or own.get("renamed_values"))


def original_names(registry: str, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters under the names and values that they first had: a run's identity must not change with them.

    Parameters of later versions are left out where they stand for the earlier behaviour.
    """
    if name not in names(registry):
        return dict(params)
    own = card(registry, name)
    first = {new: old for old, new in own.get("renamed", {}).items()}
    values = {key: {new: old for old, new in pairs.items()} for key, pairs in own.get("renamed_values", {}).items()}
    added = plain(own.get("added", {}))
    kept = {key: value for key, value in params.items() if key not in added or plain(value) != added[key]}
    return {first.get(key, key): _mapped(value, values.get(key)) for key, value in kept.items()}


def _renamed(own: Card, params: Mapping[str, Any]) -> dict[str, Any]:
    names_, values = own.get("renamed", {}), own.get("renamed_values", {})
    if not names_ and not values:
        return dict(params)
    found = {names_.get(key, key): value for key, value in params.items()}
    return {key: _mapped(value, values.get(key)) for key, value in found.items()}


def _mapped(value: Any, pairs: Mapping[Any, Any] | None) -> Any:
    return pairs.get(value, value) if pairs and isinstance(value, (str, bool)) else value


def type_of(parameter: Parameter) -> Any:
    """Return the type that a parameter's annotation means; anything that cannot be read counts as text."""
    try:
        return eval(parameter.annotation, {"__builtins__": {}}, {**_TYPES, "Literal": Literal, "None": None})
    except (NameError, TypeError, SyntaxError, AttributeError):
        return str


def plain(value: Any) -> Any:
    """Return a value as JSON holds it: tuples become lists."""
    if isinstance(value, (str, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def describe_type(annotation: str) -> str:
    """Return what a parameter takes: ``a whole number``, ``one of fre, nll``, ``a list of texts, or nothing``."""
    if annotation.startswith("Literal["):
        return f"one of {', '.join(map(str, _literals(annotation)))}"
    if annotation.startswith("tuple[") and annotation.endswith("]"):
        inner = annotation.removeprefix("tuple[").partition(",")[0].rstrip("]")
        return f"a list of {_WORDS[inner][1]}, such as {_WORDS[inner][2]}" if inner in _WORDS else annotation
    if " | " in annotation:
        *others, last = (describe_type("None" if a == "None" else a) for a in annotation.split(" | "))
        return f"{', '.join(others)} or {last}"
    return _WORDS[annotation][0] if annotation in _WORDS else annotation


def _literals(annotation: str) -> tuple[Any, ...]:
    return get_args(type_of(Parameter("", annotation, None)))


def _checked(owner: str, parameter: Parameter, value: Any) -> Any:
    """Convert a value, which may be text from the command line, to the parameter's type."""
    import jsonargparse

    parser = _parser(parameter.name, parameter.annotation)
    try:
        parsed = plain(parser.parse_object({parameter.name: plain(_as_list(parameter, value))})[parameter.name])
    except (jsonargparse.ArgumentError, TypeError, ValueError, KeyError, OverflowError) as error:
        raise _wrong(owner, parameter, value) from error
    nothing = parsed is None and "None" not in parameter.annotation.split(" | ")  # which the parser lets through
    if nothing or not _is_finite(parsed):
        raise _wrong(owner, parameter, value)
    return parsed


def _is_finite(value: Any) -> bool:
    """Return whether all numbers of a value are finite and fit a machine's numbers."""
    if isinstance(value, (list, tuple)):
        return all(map(_is_finite, value))
    if isinstance(value, int):
        return value.bit_length() <= 64
    return not isinstance(value, float) or math.isfinite(value)


def _wrong(owner: str, parameter: Parameter, value: Any) -> BadConfig:
    hint = ""
    if parameter.annotation.startswith("Literal[") and isinstance(value, str):
        hint = did_you_mean(value, map(str, _literals(parameter.annotation)))
    words = describe_type(parameter.annotation)
    shown = (
        f"a number of {value.bit_length()} bits" if isinstance(value, int) and value.bit_length() > 64 else repr(value)
    )
    return BadConfig(f"{owner}.{parameter.name} takes {words}, not {shown}.{hint} See `iadbe show {owner}`.")


def _as_list(parameter: Parameter, value: Any) -> Any:
    """Read ``1,2,3``, or a single value, as a list where the parameter takes one."""
    first, *others = parameter.annotation.split(" | ")
    if not first.startswith("tuple[") or isinstance(value, (list, tuple)) or value is None:
        return value
    if not isinstance(value, str):
        return value if others and "None" not in others else [value]
    text = value.strip()
    if text.startswith(("[", "(")) or (others and text.lower() in ("null", "none", "")):
        return text.replace("(", "[").replace(")", "]") if text.startswith("(") else value
    if "," in text or "str" not in others:
        return [part.strip() for part in text.split(",") if part.strip()]
    return value


@cache
def _parser(name: str, annotation: str) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=type_of(Parameter(name, annotation, None)))
    return parser


FILE = "file:"
NEEDS_DEPTH = "it needs depth beside the image, which an exported file does not take"


def without_paths(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace files among the parameters by ``file:NAME#DIGEST``; return (parameters, where the files are).

    A run's identity must hold what is in a weight file, not where this machine keeps it.
    """
    named, place = {}, {}
    for key, value in params.items():
        if isinstance(value, str) and value and system.user_path(value).is_file():
            path = system.user_path(value).absolute()
            named[key] = f"{FILE}{path.name}#{_digest(path, path.stat().st_mtime_ns)}"
            place[named[key]] = str(path)
        else:
            named[key] = value
    return named, place


def with_paths(params: Mapping[str, Any], place: Mapping[str, str]) -> dict[str, Any]:
    """Put the files back that :func:`without_paths` replaced."""
    found = dict(params)
    for key, value in params.items():
        if isinstance(value, str) and value.startswith(FILE):
            if value not in place:
                name = value.removeprefix(FILE).partition("#")[0]
                raise BadConfig(f"the file {name} is not known on this machine. Give its path as {key}.")
            found[key] = place[value]
    return found


@cache
def _digest(path: Path, changed: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def needs_with(detector: Card, params: Mapping[str, Any]) -> frozenset[str]:
    """Return what a detector with these parameters, all of them, needs of dataset and setting."""
    more = (values.get(params.get(name), ()) for name, values in (detector.get("needs_for") or {}).items())
    return frozenset(detector.get("needs")).union(*more)


def why_not_exportable(detector: Card, params: Mapping[str, Any]) -> str:
    """Return why no exported file can hold a detector with these parameters, all of them; "" where one can."""
    if reason := detector.get("not_exportable"):
        return str(reason)
    if "depth" in needs_with(detector, params):
        return NEEDS_DEPTH
    reasons = (values.get(params.get(name), "") for name, values in (detector.get("not_exportable_for") or {}).items())
    return next(filter(None, reasons), "")
