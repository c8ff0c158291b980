"""Validates a requested grid: registered names only, data by the name of a data root, and no paths.

On the command line a parameter may name a file, a detector may be a class in any module, and data any folder. A request
could read files or run code that way, so each of these is refused here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from iadbe import registry
from iadbe.errors import BadConfig
from iadbe.parameters import plain
from iadbe.protocol import MIN_SIDE, NATIVE, Protocol
from iadbe.registry import Parameter
from iadbe.running.plan import KEYS
from iadbe.web import number_ranges
from iadbe.web.data_roots import WITHOUT_FOLDER, DataRoots

HARMLESS = re.compile(r"[\w .,;+@()\[\]!?*=%-]*")  # excludes slash, colon and tilde, so no path and no URL
OPTIONS: dict[str, type] = {
    "device": str, "engine": str, "threads": int, "keep_model": bool, "keep_maps": bool, "images": int,
    "time_limit": float, "memory_limit": int, "jobs": int, "retry_failed": bool,
}  # fmt: skip
OPTION_RANGES = {
    "threads": (0, 1024), "images": (0, 1000), "time_limit": (0, 90 * 24 * 3600), "memory_limit": (0, 2**50),
    "jobs": (0, 256),
}  # fmt: skip
ENGINES = ("torch", "onnxruntime", "openvino")
DEVICE = re.compile(r"auto|cpu|cuda(:\d{1,2})?|mps")
MAX_SEEDS = 100
MAX_DATA = 50  # datasets that one plan opens, sweeps multiplied out
MAX_RUNS = 10_000  # runs of one job
MAX_METRICS = 50
MAX_SIZE = 4096  # pixels of the uniform protocol
# str parameters that never name a file. Any other may, so a request can give only its default
NOT_FILES = ("backbone", "model", "name", "source", "target", "order", "augment", "kinds", "good_names", "extensions")
WEIGHTS = ("auto", "none")


def grid(given: Mapping[str, Any], data_roots: DataRoots) -> dict[str, Any]:
    """Return the grid with the folders of its data roots. Raises :class:`BadConfig` for what a request may not name."""
    number_ranges.check_size("the grid", given)
    for key in given:
        if key not in KEYS:
            raise BadConfig(f"a grid has no key {key!r}. It has: {', '.join(KEYS)}.")
    grid = {**given, "detectors": [_registered("detectors", e) for e in _list(given.get("detectors"))]}
    grid["data"] = [_data(e, data_roots) for e in _list(given.get("data"))]
    if given.get("settings"):
        grid["settings"] = [_registered("settings", e) for e in _list(given["settings"])]
    for key in ("seeds", "budget", "precision", "accumulate", "metrics"):
        _check_text(key, given.get(key))
    check_protocol(Protocol.parse(str(given.get("protocol") or "uniform")))
    _check_counts(given, grid)
    return grid


def check_protocol(protocol: Protocol) -> None:
    """Raise :class:`BadConfig` where a view is larger than a request may ask for."""
    for side in () if protocol.size == NATIVE else (protocol.size, protocol.width or protocol.size):
        number_ranges.check_number("the size of the protocol", side, MIN_SIDE, MAX_SIZE)


def _check_counts(given: Mapping[str, Any], grid: Mapping[str, Any]) -> None:
    """Count what the grid would expand to, before anything is expanded."""
    seeds = _list(given.get("seeds"))
    if len(seeds) > MAX_SEEDS:
        raise BadConfig(f"{len(seeds)} seeds are too many; {MAX_SEEDS} are allowed.")
    for seed in seeds:
        if isinstance(seed, (int, float)):
            number_ranges.check_number("a seed", seed, *number_ranges.SEED)
        elif not re.fullmatch(r"[0-9]{1,10}", str(seed)):
            raise BadConfig(f"a seed is a whole number, not {str(seed)[:40]!r}.")
    if len(_list(given.get("metrics"))) > MAX_METRICS:
        raise BadConfig(f"at most {MAX_METRICS} metrics are allowed.")
    detectors, settings = (sum(map(_variants, grid.get(key) or [{}])) for key in ("detectors", "settings"))
    data = [_variants(e) for e in grid["data"]]
    if sum(data) > MAX_DATA:
        raise BadConfig(f"the grid opens {sum(data)} datasets; {MAX_DATA} are allowed.")
    tasks = sum(n * max(1, len(_list(e.get("categories")))) for n, e in zip(data, grid["data"], strict=True))
    if (runs := detectors * settings * tasks * max(1, len(seeds))) > MAX_RUNS:
        raise BadConfig(f"{runs} runs are too many for one job; {MAX_RUNS} are allowed.")


def _is_of_type(value: Any, kind: type) -> bool:
    if kind is bool or isinstance(value, bool):
        return kind is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if kind is float else kind)


def _variants(entry: Mapping[str, Any]) -> int:
    """Return the number of combinations of an entry's sweep."""
    return math.prod(max(1, len(_list(values))) for values in (entry.get("sweep") or {}).values())


def options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated run options. Raises :class:`BadConfig`."""
    number_ranges.check_size("the options", given)
    given = {"images" if key == "pictures" else key: value for key, value in given.items()}  # old name
    for key, value in given.items():
        if key not in OPTIONS:
            raise BadConfig(f"there is no option {key!r}. There are: {', '.join(OPTIONS)}.")
        if value is not None and not _is_of_type(value, OPTIONS[key]):
            raise BadConfig(f"{key} takes {OPTIONS[key].__name__}, not {str(value)[:80]!r}.")
        if key in OPTION_RANGES and value is not None:
            number_ranges.check_number(key, value, *OPTION_RANGES[key])
    if not DEVICE.fullmatch(given.get("device") or "auto"):
        raise BadConfig(f"there is no device {given['device']!r}. There are auto, cpu, cuda, cuda:1, mps …")
    if (given.get("engine") or "torch") not in ENGINES:
        raise BadConfig(f"there is no engine {given['engine']!r}. There are {', '.join(ENGINES)}.")
    return {k: v for k, v in given.items() if v is not None}


def _registered(registry_name: str, entry: Any) -> dict[str, Any]:
    entry = _entry(registry_name, entry)
    name = entry["name"]
    if ":" in name:
        raise BadConfig(f"{name!r}: a request cannot name a class outside of iadbe; the command line can.")
    registry.check(registry_name, name)
    _check(registry_name, name, {k: v for k, v in entry.items() if k not in ("name", "params", "sweep")})
    _check(registry_name, name, entry.get("params") or {})
    _check(registry_name, name, entry.get("sweep") or {}, several=True)
    return entry


def _data(entry: Any, data_roots: DataRoots) -> dict[str, Any]:
    entry = _entry("data", entry)
    name = entry["name"]
    own = {str(k): v for k, v in entry.items() if k not in ("name", "params", "categories", "sweep", "region")}
    params, sweep = {**own, **(entry.get("params") or {})}, entry.get("sweep") or {}
    root = None if name in WITHOUT_FOLDER else data_roots.get(name)
    dataset = name if root is None else root.dataset
    _check("datasets", dataset, params)
    _check("datasets", dataset, sweep, several=True)
    _check_text(name, entry.get("categories"))
    kept = {k: entry[k] for k in ("categories", "sweep") if entry.get(k)}
    if root is not None:
        params = {**root.params, **params, "root": str(root.folder)}
    params |= data_roots.region_files(name, entry.get("region", "drawn"))
    return {"name": dataset, "params": params, **kept}


def _check(registry_name: str, owner: str, params: Mapping[str, Any], *, several: bool = False) -> None:
    """Refuse a parameter whose text could be a file or a folder; ``several``: each value is a list to sweep over."""
    card = registry.card(registry_name, owner)
    known = {p.name: p for p in card.parameters}
    for key, given in params.items():
        for value in _list(given) if several else [given]:
            _check_text(f"{owner}.{key}", value)
            number_ranges.check_parameter(card, str(key), value)
            own = known.get(str(key))
            if own is None or not is_file(own):
                continue  # planning reports unknown parameters
            if plain(value) != plain(own.default) and not (key == "weights" and value in WEIGHTS):
                reason = "names a file or a folder, which only the server's operator can do"
                raise BadConfig(f"{owner}.{key} {reason}.")


def is_file(parameter: Parameter) -> bool:
    """Return whether a parameter's value could name a file or a folder."""
    return "str" in parameter.annotation and "Literal" not in parameter.annotation and parameter.name not in NOT_FILES


def _entry(key: str, entry: Any) -> dict[str, Any]:
    if isinstance(entry, str):
        return {"name": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
        raise BadConfig(f"each of {key} is a name, or a mapping such as {{name: padim, dims: 50}}, not {entry!r}.")
    for part in ("params", "sweep"):
        if not isinstance(entry.get(part) or {}, Mapping):
            raise BadConfig(f"{part} of {entry['name']} must be names with values.")
    return dict(entry)


def _check_text(owner: str, value: Any) -> None:
    """Refuse text that could be a path, a URL or a module."""
    for text in _iter_text(value):
        if not HARMLESS.fullmatch(text) or ".." in text:
            raise BadConfig(f"{owner}: {text!r} could be a file or an address, which a request cannot name.")


def _iter_text(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield str(key)
            yield from _iter_text(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _iter_text(inner)


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, (list, tuple)) else [value]
