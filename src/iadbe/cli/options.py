"""The options that commands share, and how ``--detector padim --detector.dims 50`` is read.

Two passes: which detector, data and setting are meant (options first, then the config file), then a parser that
has exactly their parameters, with types and defaults from the cards. So ``iadbe train --detector padim --help``
shows padim's parameters, a typing error gets a suggestion, and nothing heavy is imported. A config file is applied
before all options, wherever it stands.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonargparse

from iadbe import sources
from iadbe.cli import Usage, legacy
from iadbe.errors import BadConfig, did_you_mean
from iadbe.parameters import type_of
from iadbe.registry import Card, card, check
from iadbe.types import Options

AXES = ("detector", "data", "setting")
DEFAULTS = {"setting": "vanilla"}
DATA_KEYS = {"category": "categories"}
STORE = "runs"


@dataclass
class Request:
    """What a command line asks for."""

    values: dict[str, Any]  # the command's own options
    chosen: dict[str, dict[str, Any]]  # by axis: name and the parameters that were given
    notes: list[str] = field(default_factory=list)

    def entry(self, axis: str) -> dict[str, Any]:
        """Return an axis as a grid writes it."""
        if axis not in self.chosen:
            example = {"detector": "patchcore", "data": "FOLDER", "setting": "vanilla"}[axis]
            raise BadConfig(f"which {axis}? Give --{axis}, for example --{axis} {example}. See `iadbe list`.")
        return self.chosen[axis]


def parse(
    command: str,
    about: str,
    arguments: Sequence[str],
    add: Callable[[jsonargparse.ArgumentParser], Any],
    axes: Sequence[str] = (),
) -> Request:
    """Read a command line; ``add`` adds the command's own options to the parser."""
    arguments, notes = legacy.arguments(list(arguments))
    config, rest = _config(arguments, notes)
    given = {axis: _chosen(axis, rest, config.pop(axis, None), notes) for axis in axes}
    parser = jsonargparse.ArgumentParser(prog=f"iadbe {command}", description=about, exit_on_error=False)
    add(parser)
    if axes:
        parser.add_argument("--config", type=str, metavar="FILE", help="YAML file with the same keys; options win over it")
    for axis in axes:
        _add_axis(parser, axis, given[axis])
    known = [o for a in parser._actions for o in a.option_strings]
    rest = [_spelt(token, axes) for token in rest]
    for token in rest:
        option = token.partition("=")[0]
        if option.startswith("--") and option != "--" and option not in known:
            raise Usage(f"there is no option {option}.{did_you_mean(option, known)} See `iadbe {command} --help`.")
    if unknown := [k for k in config if f"--{k.replace('_', '-')}" not in known and f"--{k}" not in known]:
        raise BadConfig(f"the config has {unknown[0]!r}, which is no option.{did_you_mean(unknown[0], [k[2:] for k in known])}")
    try:
        parser.set_defaults({k.replace("-", "_"): v for k, v in config.items()})
        parsed = parser.parse_args(rest).as_dict()
    except jsonargparse.ArgumentError as error:
        raise Usage(f"{_one_line(error)} See `iadbe {command} --help`.") from error
    chosen = {axis: _merged(axis, given[axis], parsed.pop(axis, {}), rest) for axis in axes if given[axis]}
    parsed.pop("config", None)
    return Request(parsed, chosen, notes)


def _config(arguments: list[str], notes: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Take ``--config FILE`` out of the arguments, wherever it stands, and read the file."""
    rest, files = [], []
    waiting = False
    for token in arguments:
        if waiting:
            files.append(token)
            waiting = False
        elif token == "--config":
            waiting = True
        elif token.startswith("--config="):
            files.append(token.partition("=")[2])
        else:
            rest.append(token)
    if waiting:
        raise Usage("--config needs a file.")
    merged: dict[str, Any] = {}
    for file in files:
        merged |= legacy.config(_yaml(Path(file)), notes)
    return merged, rest


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = yaml.safe_load(path.expanduser().read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BadConfig(f"there is no config file {path}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadConfig(f"{path} cannot be read as YAML: {_one_line(error)}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{path} holds no options: it needs lines such as detector: padim.")
    return found


def _chosen(axis: str, arguments: list[str], configured: Any, notes: list[str]) -> dict[str, Any]:
    """Return the name of an axis and the parameters that the config gives; an option's name wins."""
    entry = dict(configured) if isinstance(configured, Mapping) else {"name": configured} if configured else {}
    entry = {DATA_KEYS.get(k, k) if axis == "data" else k: v for k, v in entry.items()}
    for i, token in enumerate(arguments):
        if token in (f"--{axis}", f"--{axis}.name") and i + 1 < len(arguments):
            name = arguments[i + 1]
        elif token.startswith((f"--{axis}=", f"--{axis}.name=")):
            name = token.partition("=")[2]
        else:
            continue
        entry = {**(entry if entry.get("name") == name else {}), "name": name}
    if not entry.get("name"):
        if axis not in DEFAULTS:
            return {}
        entry["name"] = DEFAULTS[axis]
    if axis == "data":
        root = next((t.partition("=")[2] or arguments[i + 1 : i + 2][0] for i, t in enumerate(arguments)
                     if t.startswith("--data.root") and (("=" in t) or i + 1 < len(arguments))), None)  # fmt: skip
        params = {k: v for k, v in entry.items() if k not in ("name", "categories")}
        found = sources.find(entry["name"], **(params | ({"root": root} if root else {})))
        notes += found.notes
        return {**entry, **found.params, "name": found.name}
    check(f"{axis}s", entry["name"])
    return entry


def _add_axis(parser: jsonargparse.ArgumentParser, axis: str, entry: Mapping[str, Any]) -> None:
    """Add ``--detector NAME`` and, once it is known which, its parameters."""
    shelf = "datasets" if axis == "data" else f"{axis}s"
    title = f"{axis}: {entry['name']}" if entry else axis
    group = parser.add_argument_group(title)
    what = {"data": "a dataset's name, a folder, or a YAML file"}.get(axis, f"see `iadbe list {shelf}`")
    group.add_argument(f"--{axis}.name", type=str, metavar="NAME", help=f"--{axis} for short: {what}")
    if not entry:
        return
    own: Card = card(shelf, entry["name"])
    for parameter in own.parameters:
        group.add_argument(
            f"--{axis}.{parameter.name}", type=type_of(parameter), default=_as_default(parameter.default),
            help=parameter.doc or None,
        )  # fmt: skip
    if axis == "data":
        group.add_argument("--data.categories", type=str, help="which categories, with commas; all of them by default")


def _as_default(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _spelt(token: str, axes: Sequence[str]) -> str:
    """Spell ``--detector`` as ``--detector.name`` and ``--data.category`` as ``--data.categories``."""
    option, equals, value = token.partition("=")
    if option[2:] in axes:
        option += ".name"
    if option == "--data.category":
        option = "--data.categories"
    return option + equals + value


def _merged(axis: str, entry: Mapping[str, Any], parsed: Mapping[str, Any], arguments: Sequence[str]) -> dict[str, Any]:
    """Lay the options that were really typed over what the config gave."""
    typed = {t.partition("=")[0].removeprefix(f"--{axis}.") for t in arguments if t.startswith(f"--{axis}.")}
    merged = {**entry, **{k: parsed[k] for k in typed if k in parsed and k != "name"}}
    if isinstance(merged.get("categories"), str):
        merged["categories"] = [c.strip() for c in merged["categories"].split(",") if c.strip()]
    return merged


def add_running(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options that say how runs are carried out; they have no part in what comes out."""
    group = parser.add_argument_group("how to run")
    group.add_argument("--store", type=str, default=STORE, metavar="DIR", help="folder for results")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1 …")
    group.add_argument("--threads", type=int, default=0, help="of one run; 0: all cores, shared among the jobs")
    group.add_argument("--jobs", type=int, default=0, help="runs at a time; 0: one for each GPU or every four cores")
    group.add_argument("--executor", type=str, default="local", help="local, or dask")
    group.add_argument("--scheduler", type=str, default="", metavar="ADDRESS", help="of Dask; without, a local cluster")
    group.add_argument("--time-limit", type=str, default="", metavar="10m", help="for one run: 90s, 10m, 2h")
    group.add_argument("--memory-limit", type=str, default="", metavar="4GB", help="for one run")
    group.add_argument("--features", type=str, default="", metavar="DIR", help="feature store; off: none")
    group.add_argument("--keep-maps", action="store_true", help="keep the pixel scores of every test picture")
    group.add_argument("--retry", action="store_true", help="run again what failed before")


def add_spec(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options that decide numbers."""
    group = parser.add_argument_group("what to run")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--protocol", type=str, default="uniform", help="uniform, uniform@SIZE or paper")
    group.add_argument("--size", type=int, default=0, metavar="PIXELS", help="short for --protocol uniform@PIXELS")
    group.add_argument("--metrics", type=str, default="", help="with commas; see `iadbe list metrics`")


def options_of(values: Mapping[str, Any], **more: Any) -> Options:
    """Return how to run, from the values of :func:`add_running`."""
    return Options(
        device=values["device"],
        threads=values["threads"],
        features=values["features"],
        keep_maps=values["keep_maps"],
        time_limit=seconds(values["time_limit"]),
        memory_limit=size(values["memory_limit"]),
        command=" ".join(["iadbe", *map(_quoted, sys.argv[1:])]),
        **more,
    )


def protocol_of(values: Mapping[str, Any]) -> str:
    """Return the protocol that ``--protocol`` and ``--size`` mean."""
    return f"uniform@{values['size']}" if values["size"] else str(values["protocol"])


def seconds(text: str) -> float | None:
    """Read ``90s``, ``10m``, ``2h`` or plain seconds."""
    return _measured(text, {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}, "a time such as 90s, 10m or 2h")


def size(text: str) -> int | None:
    """Read ``4GB``, ``500MB`` or plain bytes."""
    units = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "mib": 2**20, "gib": 2**30, "g": 10**9, "m": 10**6}
    found = _measured(text, units, "a size such as 500MB or 4GB")
    return None if found is None else int(found)


def _measured(text: str, units: Mapping[str, int], example: str) -> float | None:
    if not text:
        return None
    match = re.fullmatch(r"\s*([0-9.]+)\s*([a-zA-Z]*)\s*", text)
    if not match or match[2].lower() not in units or match[1].count(".") > 1:
        raise Usage(f"{text!r} is not {example}.")
    return float(match[1]) * units[match[2].lower()]


def _quoted(token: str) -> str:
    import shlex

    return shlex.quote(token)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())
