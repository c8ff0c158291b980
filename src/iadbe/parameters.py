"""Checks and completes the parameters of anything on a shelf, from its card alone: nothing is imported.

The command line, grids, Python calls and result files all pass through here, so a wrong name or type gives the
same sentence everywhere, and a run's identity always holds every default.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from iadbe.errors import BadConfig, UnknownName, did_you_mean
from iadbe.registry import Card, Parameter

_TYPES = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple, "list": list, "dict": dict}


def complete(card: Card, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return all parameters of ``card`` as plain values: the given ones checked, the others their defaults.

    Raises :class:`UnknownName` for a parameter that does not exist and :class:`BadConfig` for a wrong type.
    """
    known = {p.name: p for p in card.parameters}
    for name in given:
        if name not in known:
            hint = did_you_mean(name, known) or (f" It has: {', '.join(known)}." if known else " It has none.")
            raise UnknownName(f"{card.name} has no parameter {name!r}.{hint} See `iadbe show {card.name}`.")
    if lacking := [p.name for p in card.parameters if p.required and p.name not in given]:
        raise BadConfig(f"{card.name} needs {', '.join(lacking)}. See `iadbe show {card.name}`.")
    checked = {name: _checked(card.name, known[name], value) for name, value in given.items()}
    return {p.name: checked.get(p.name, plain(p.default)) for p in card.parameters}


def type_of(parameter: Parameter) -> Any:
    """Return the type that a parameter's annotation means; anything that cannot be read counts as text."""
    try:
        return eval(parameter.annotation, {"__builtins__": {}}, {**_TYPES, "Literal": Literal, "None": None})
    except (NameError, TypeError, SyntaxError, AttributeError):
        return str


def plain(value: Any) -> Any:
    """Return a value as JSON knows it: tuples become lists."""
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    return str(value) if isinstance(value, Path) else value


def _checked(owner: str, parameter: Parameter, value: Any) -> Any:
    """Convert a value, which may be text from the command line, to the parameter's type."""
    import jsonargparse

    parser = _parser(parameter.name, parameter.annotation)
    try:
        parsed = parser.parse_object({parameter.name: plain(value)})
    except (jsonargparse.ArgumentError, TypeError, ValueError, KeyError) as error:
        raise BadConfig(
            f"{owner}.{parameter.name} must be {parameter.annotation}, not {value!r}. See `iadbe show {owner}`."
        ) from error
    return plain(parsed[parameter.name])


@cache
def _parser(name: str, annotation: str) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument(f"--{name}", type=type_of(Parameter(name, annotation, None)))
    return parser


FILE = "file:"


def without_paths(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """Replace files among the parameters by ``file:NAME#DIGEST``; return (parameters, where the files are).

    A run's identity must hold what is in a weight file, not where this machine keeps it.
    """
    named, place = {}, {}
    for key, value in params.items():
        if isinstance(value, str) and value and Path(value).expanduser().is_file():
            path = Path(value).expanduser().absolute()
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
