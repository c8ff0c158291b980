"""From what a request asks for to a grid that may be planned: names from the shelves, data from the places, no paths.

On the command line a parameter may be a file, a name may be a class in any module, and data any folder. A request
could read files or run code with that, so here each is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from iadbe import registry
from iadbe.errors import BadConfig
from iadbe.parameters import plain
from iadbe.registry import Parameter
from iadbe.running.plan import KEYS
from iadbe.web.places import DRAWN, Places

PLAIN = re.compile(r"[\w .,;+@()\[\]!?*=%-]*")  # of texts: neither slash nor colon nor tilde
HOW: dict[str, type] = {
    "device": str, "engine": str, "threads": int, "keep_model": bool, "keep_maps": bool, "images": int,
    "time_limit": float, "memory_limit": int, "jobs": int, "retry_failed": bool,
}  # fmt: skip
ENGINES = ("torch", "onnxruntime", "openvino")
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?|mps")
SEEDS = 100
# parameters that are words; any other text may be a file or a folder, so only its default is for requests
WORDS = ("backbone", "model", "name", "source", "target", "order", "augment", "kinds", "good_names", "extensions")
WEIGHTS = ("auto", "none")


def grid(asked: Mapping[str, Any], places: Places) -> dict[str, Any]:
    """Return the grid with folders instead of places; :class:`BadConfig` where something is not for requests."""
    for key in asked:
        if key not in KEYS:
            raise BadConfig(f"a grid has no key {key!r}. It has: {', '.join(KEYS)}.")
    made = {**asked, "detectors": [_named("detectors", e) for e in _list(asked.get("detectors"))]}
    made["data"] = [_data(e, places) for e in _list(asked.get("data"))]
    if asked.get("settings"):
        made["settings"] = [_named("settings", e) for e in _list(asked["settings"])]
    if len(_list(asked.get("seeds"))) > SEEDS:
        raise BadConfig(f"at most {SEEDS} seeds.")
    for key in ("seeds", "protocol", "metrics"):
        _plain(key, asked.get(key))
    return made


def how(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return how to run, checked."""
    asked = {"images" if key == "pictures" else key: value for key, value in asked.items()}  # its name in version 0.1
    for key, value in asked.items():
        if key not in HOW:
            raise BadConfig(f"there is no option {key!r}. There are: {', '.join(HOW)}.")
        if value is not None and not isinstance(value, (int, float) if HOW[key] is float else HOW[key]):
            raise BadConfig(f"{key} takes {HOW[key].__name__}, not {value!r}.")
        if HOW[key] in (int, float) and isinstance(value, (int, float)) and not 0 <= value < 2**53:
            raise BadConfig(f"{key} cannot be {value!r}.")
    if not DEVICE.fullmatch(asked.get("device") or "auto"):
        raise BadConfig(f"there is no device {asked['device']!r}. There are auto, cpu, cuda, cuda:1 …")
    if (asked.get("engine") or "torch") not in ENGINES:
        raise BadConfig(f"there is no engine {asked['engine']!r}. There are {', '.join(ENGINES)}.")
    return {k: v for k, v in asked.items() if v is not None}


def _named(shelf: str, entry: Any) -> dict[str, Any]:
    entry = _entry(shelf, entry)
    name = entry["name"]
    if ":" in name:
        raise BadConfig(f"{name!r}: classes outside of iadbe are for the command line, not for requests.")
    registry.check(shelf, name)
    _check(shelf, name, {k: v for k, v in entry.items() if k not in ("name", "params", "sweep")})
    _check(shelf, name, entry.get("params") or {})
    _check(shelf, name, entry.get("sweep") or {}, several=True)
    return entry


def _data(entry: Any, places: Places) -> dict[str, Any]:
    entry = _entry("data", entry)
    name = entry["name"]
    own = {str(k): v for k, v in entry.items() if k not in ("name", "params", "categories", "sweep")}
    params, sweep = {**own, **(entry.get("params") or {})}, entry.get("sweep") or {}
    place = None if name in DRAWN else places.get(name)
    dataset = name if place is None else place.dataset
    _check("datasets", dataset, params)
    _check("datasets", dataset, sweep, several=True)
    _plain(name, entry.get("categories"))
    kept = {k: entry[k] for k in ("categories", "sweep") if entry.get(k)}
    if place is not None:
        params = {**place.params, **params, "root": str(place.folder)}
    return {"name": dataset, "params": params, **kept}


def _check(shelf: str, owner: str, params: Mapping[str, Any], *, several: bool = False) -> None:
    """Refuse a parameter whose text could be a file or a folder; ``several``: each is a list of values."""
    known = {p.name: p for p in registry.card(shelf, owner).parameters}
    for key, given in params.items():
        for value in _list(given) if several else [given]:
            _plain(f"{owner}.{key}", value)
            own = known.get(str(key))
            if own is None or not is_file(own):
                continue  # what is not known is told when the grid is planned
            if plain(value) != plain(own.default) and not (key == "weights" and value in WEIGHTS):
                told = "names a file or a folder: only the one who started the server can do that"
                raise BadConfig(f"{owner}.{key} {told}.")


def is_file(parameter: Parameter) -> bool:
    """Say whether a parameter's text could be a file or a folder."""
    return "str" in parameter.annotation and "Literal" not in parameter.annotation and parameter.name not in WORDS


def _entry(key: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise BadConfig(f"each of {key} is a name, or a mapping such as {{name: padim, dims: 50}}, not {entry!r}.")
    for part in ("params", "sweep"):
        if not isinstance(entry.get(part) or {}, Mapping):
            raise BadConfig(f"{part} of {entry['name']} must be names with values.")
    return dict(entry)


def _plain(owner: str, value: Any) -> None:
    """Refuse texts that could mean a path, an address or a module."""
    for text in _texts(value):
        if not PLAIN.fullmatch(text) or ".." in text:
            raise BadConfig(f"{owner}: {text!r} could mean a file or an address; a request cannot name these.")


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _texts(inner)


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
