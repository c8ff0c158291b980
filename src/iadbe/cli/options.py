"""The options that commands share, and how ``--detector padim --detector.dims 50`` is read.

Two passes: first which detector, data and setting are meant, and their parameters, which are checked against their
cards; then the command's own options. So ``iadbe train --detector padim --help`` shows padim's parameters, a typing
error gets a suggestion, and nothing heavy is imported. A config file is read before all options, wherever it stands.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonargparse

from iadbe import protocol, registry, system
from iadbe.cli import UsageError, legacy, usage
from iadbe.cli.protocol_options import add_protocol
from iadbe.errors import BadConfig, IadbeError, Missing
from iadbe.files.byte_sizes import parse_bytes
from iadbe.parameters import complete
from iadbe.registry import card, check
from iadbe.types import Options

AXES = ("detector", "data", "setting")
DEFAULTS = {"setting": "vanilla"}
CATEGORIES = ("category", "categories")  # which of the data's; all other dotted options are parameters
STORE = "runs"
AXIS_HELP = {
    "detector": "see `iadbe list detectors`; --detector.NAME X sets one of its parameters",
    "data": "a dataset (`iadbe list datasets`), a folder or a YAML file; --data.NAME X sets one of its parameters",
    "setting": "see `iadbe list settings` (default: vanilla)",
}
EXAMPLE = {"detector": "patchcore", "data": "FOLDER", "setting": "vanilla"}


@dataclass
class Request:
    """A parsed command line."""

    values: dict[str, Any]  # the command's own options
    chosen: dict[str, dict[str, Any]]  # by axis: what a grid's entry holds
    notes: list[str] = field(default_factory=list)

    def entry(self, axis: str) -> dict[str, Any]:
        """Return an axis as a grid writes it: name, params, and of data also categories."""
        if axis not in self.chosen:
            see = f"See `iadbe list {axis}s`." if axis != "data" else "See `iadbe list datasets`."
            raise UsageError(f"which {axis}? Give --{axis}, for example --{axis} {EXAMPLE[axis]}. {see}")
        return self.chosen[axis]


@dataclass
class _AxisInput:
    """Options and config values of one axis."""

    name: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    configured: Any = None
    file: Path = Path()  # that ``configured`` is from


def parse(
    command: str,
    about: str,
    arguments: Sequence[str],
    add: Callable[[jsonargparse.ArgumentParser], Any],
    axes: Sequence[str] = (),
    form: str = "[options]",
) -> Request:
    """Read a command line; ``add`` adds the command's own options to the parser."""
    parser = usage.Parser(command, about, form)
    add(parser)
    parser.axes = tuple(axes)
    _trust_typed(arguments)
    tokens, notes = legacy.arguments(arguments, parser.known)
    request = {axis: _AxisInput() for axis in axes}
    tokens = _read_configs(parser, tokens, request, notes)
    for axis in axes:
        tokens = _take_axis(axis, tokens, request[axis])
    wants_help = bool({"-h", "--help"} & set(tokens))
    chosen: dict[str, dict[str, Any]] = {}
    for axis in axes:
        try:
            chosen |= {axis: entry} if (entry := _choose(axis, request[axis], notes)) else {}
        except IadbeError:
            if not wants_help:
                raise
    if wants_help:
        for axis in axes:
            own = card(_registry_of(axis), chosen[axis]["name"]) if axis in chosen else None
            parser.show(f"{axis}: {own.name}" if own else axis, usage.axis_options(axis, AXIS_HELP[axis], own))
        if axes:
            parser.show("config", [("--config", "FILE", "YAML file with the same names; options win over it")])
        parser.print_help()
        raise SystemExit(0)
    return Request(parser.read(tokens), chosen, notes)


def _trust_typed(arguments: Sequence[str]) -> None:
    """Trust the classes that the command line itself names, and files after --trust; config files do not count."""
    for before, argument in zip(["", *arguments], arguments, strict=False):
        option, equals, value = argument.partition("=")
        text = value if equals and option.startswith("--") else argument
        parts = [] if text.startswith("--") else [part.strip() for part in text.split(",") if part.strip()]
        if (option if equals else before) == "--trust":
            registry.trust(*parts)
        registry.trust_written(parts)


def add_trust(parser: jsonargparse.ArgumentParser) -> None:
    """Add the option that allows a class which a file names, or a pickle; :func:`parse` trusts whatever is typed."""
    text = "classes that a file may name, and so run, and weight files of other tools that may run code"
    parser.add_argument("--trust", type=str, default="", metavar="MODULE:CLASS,FILE,…", help=text)


def _registry_of(axis: str) -> str:
    return "datasets" if axis == "data" else f"{axis}s"


def _read_configs(
    parser: usage.Parser, tokens: Sequence[str], request: Mapping[str, _AxisInput], notes: list[str]
) -> list[str]:
    """Read the files of ``--config`` into ``request``; return the tokens, with those of the files in front."""
    rest, files = list(tokens), []
    for i in reversed(range(len(rest))):
        option, equals, value = rest[i].partition("=")
        if option == "--config" and "--config" not in parser.known:
            if not equals and i + 1 == len(rest):
                raise UsageError("--config needs a file.")
            files.append(system.user_path(value if equals else rest.pop(i + 1)))
            rest.pop(i)
    front: list[str] = []
    for file in reversed(files):
        found, more_notes = legacy.config(_yaml(file))
        notes += more_notes
        for key, value in found.items():
            option = f"--{key.replace('_', '-')}"
            if key == "trust":
                raise BadConfig(f"{file} has {key!r}, which only the command line may say: --trust MODULE:CLASS.")
            if key in request:
                request[key].configured, request[key].file = value, file
            elif option in parser.known:
                front += [] if value in (None, False) else [option] if value is True else [f"{option}={_text(value)}"]
            else:
                known = [*request, *(o[2:] for o in parser.known)]
                raise BadConfig(f"{file} has {key!r}, which is no option.{legacy.did_you_mean(key, known)}")
    return front + rest


def _text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _yaml(path: Path) -> dict[str, Any]:
    import yaml

    from iadbe.files.layout import load_yaml, yaml_hint

    try:
        found = load_yaml(path)
    except FileNotFoundError as error:
        raise BadConfig(f"there is no config file {path}.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        hint = yaml_hint(error) if isinstance(error, yaml.YAMLError) else ""
        raise BadConfig(f"{path} cannot be read as YAML: {' '.join(str(error).split())}{hint}") from error
    if not isinstance(found, dict):
        raise BadConfig(f"{path} holds no options: it needs lines such as detector: padim.")
    return {str(key): value for key, value in found.items()}


def _take_axis(axis: str, tokens: Sequence[str], request: _AxisInput) -> list[str]:
    """Move an axis's options from the tokens to ``request``; return the others."""
    rest, others = list(tokens), []
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option != f"--{axis}" and not option.startswith(f"--{axis}."):
            others.append(option + equals + value)
            continue
        key = option.removeprefix(f"--{axis}").removeprefix(".")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise UsageError(f"{option} needs a value.")
            value = rest.pop(0)
        if key:
            request.params[key] = value
        else:
            request.name = value
    return others


def _choose(axis: str, request: _AxisInput, notes: list[str]) -> dict[str, Any]:
    """Return the grid's entry for the request; nothing where no name was given."""
    if axis == "data":
        return _choose_data(request, notes)
    configured, given, foreign = legacy.detector(request.configured)
    name = request.name or configured or DEFAULTS.get(axis, "")
    if not name:
        if request.params:
            raise UsageError(f"which {axis}? --{axis}.{next(iter(request.params))} says nothing without --{axis} NAME.")
        return {}
    written = str(name)
    name_of = legacy.detector_name if axis == "detector" else str
    name = check(_registry_of(axis), name_of(name))
    if configured and name_of(configured) != name:
        given = {}  # of another one
    params: dict[str, Any] = {}
    for values, old in ((given, foreign), (request.params, False)):
        own, more_notes = legacy.parameters(name, values, old) if axis == "detector" else (dict(values), [])
        params |= own
        notes += more_notes
    if written.startswith("anomalib.") and "backbone" not in params:
        notes += legacy.backbone_notes(name)
    return {"name": name, "params": _checked(_registry_of(axis), name, params)}


def _choose_data(request: _AxisInput, notes: list[str]) -> dict[str, Any]:
    configured = request.configured
    if not (request.name or configured):
        if request.params:
            raise UsageError(
                f"which data? --data.{next(iter(request.params))} says nothing without --data NAME or FOLDER."
            )
        return {}
    from iadbe.data import resolve  # looks at images: help does without

    entry = dict(configured) if isinstance(configured, Mapping) else {"name": configured} if configured else {}
    inner = dict(entry.get("init_args") or entry.get("params") or {})
    chosen = [holder.pop(key) for holder in (inner, entry) for key in CATEGORIES if holder.get(key)]
    given = resolve.ResolvedData("", {})
    if "class_path" in entry:
        given = resolve.from_mapping({**entry, "init_args": inner}, request.file)
    elif entry:
        more = {k: v for k, v in entry.items() if k not in ("name", "params")}
        given = resolve.find(str(entry.get("name", "")), **{**inner, **more})
    options = {k: v for k, v in request.params.items() if k not in CATEGORIES}
    found = resolve.find(request.name) if request.name else given
    params, more_notes = resolve.split_parameters(found.name, options)
    same = given if given.name == found.name else found  # else the file is about other data
    notes += dict.fromkeys((*same.notes, *found.notes, *more_notes))
    typed = [request.params[key] for key in CATEGORIES if key in request.params]
    categories = _several((typed or chosen or [()])[-1])
    params = {**same.params, **found.params, **params}
    entry = {"name": found.name, "params": _checked("datasets", found.name, params)}
    return {**entry, "categories": categories} if categories else entry


def _several(value: Any) -> list[str]:
    """Read ``bottle,cable``, ``[bottle, cable]`` or a list."""
    parts = (
        value.strip("[] ").split(",")
        if isinstance(value, str)
        else value
        if isinstance(value, (list, tuple))
        else [value]
    )
    return [str(part).strip() for part in parts if str(part).strip()]


def _checked(registry_name: str, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the given parameters with their types; the defaults are left out."""
    whole = complete(card(registry_name, name), params)
    return {key: whole[key] for key in params}


def add_spec(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options that decide numbers."""
    group = parser.add_argument_group("what to run")
    group.add_argument("--seed", type=int, default=0, metavar="N", help="decides every random number (default: 0)")
    add_protocol(group, "uniform")
    group.add_argument("--metrics", type=str, default="", help="with commas; see `iadbe list metrics`")


def add_running(parser: jsonargparse.ArgumentParser) -> None:
    """Add the options that say how runs are carried out; they change no number."""
    group = parser.add_argument_group("how to run")
    group.add_argument("--store", type=str, default=STORE, metavar="DIR", help="folder for results")
    group.add_argument("--device", type=str, default="auto", help="auto, cpu, cuda, cuda:1, mps …")
    group.add_argument("--engine", type=str, default="torch", help="of backbones: torch, onnxruntime, openvino")
    group.add_argument("--federation", type=str, default="local", help="where clients learn: local, or flower")
    group.add_argument("--threads", type=int, default=0, metavar="N", help="of one run; 0: all cores, shared")
    group.add_argument("--jobs", type=int, default=0, metavar="N", help="runs at a time; 0: one per GPU or four cores")
    group.add_argument("--executor", type=str, default="local", help="local, or dask")
    group.add_argument("--scheduler", type=str, default="", metavar="ADDRESS", help="of Dask; else a local cluster")
    group.add_argument(
        "--checkpoints", type=str, default="45s", metavar="TIME", help="between those of training; off: none"
    )
    group.add_argument("--time-limit", type=str, default="", metavar="TIME", help="of one run: 90s, 10m, 2h")
    group.add_argument("--memory-limit", type=str, default="", metavar="SIZE", help="of one run: 500MB, 4GB")
    group.add_argument("--features", type=str, default="", metavar="DIR", help="feature store; off: none")
    group.add_argument("--keep-maps", action="store_true", help="keep the pixel scores of every test image")


def options_of(values: Mapping[str, Any], **more: Any) -> Options:
    """Return how to run, from the values of :func:`add_running`."""
    for name in ("threads", "jobs"):
        if values.get(name, 0) < 0:
            raise UsageError(f"--{name} takes a number of at least 0, not {values[name]}.")
    if (features := values["features"]) != "off" and system.user_path(features).is_file():
        raise UsageError(f"{features} is a file. Give the folder of the feature store: --features DIR, or off.")
    if (time_limit := seconds(values["time_limit"])) == 0:
        raise UsageError("--time-limit takes a time above 0, such as 90s or 10m.")
    return Options(
        device=values["device"],
        engine=values["engine"],
        federation=_federation(values["federation"]),
        threads=values["threads"],
        features=values["features"],
        keep_maps=values["keep_maps"],
        checkpoints=math.inf if values["checkpoints"] == "off" else seconds(values["checkpoints"]) or 0.0,
        time_limit=time_limit,
        memory_limit=size(values["memory_limit"]),
        command=system.command_line(["iadbe", *sys.argv[1:]]),
        **more,
    )


def _federation(name: str) -> str:
    """Check at once what every run would fail on."""
    if name not in ("local", "flower"):
        raise UsageError(f"--federation is local or flower, not {name!r}.")
    if name == "flower" and find_spec("flwr") is None:
        raise Missing("Flower is not installed. Install it with: pip install 'iadbe[flower]'")
    return name


def seconds(text: str) -> float | None:
    """Read ``90s``, ``10m``, ``2h`` or plain seconds."""
    try:
        return protocol.seconds(text) if text else None
    except BadConfig as error:
        raise UsageError(str(error)) from error


def size(text: str) -> int | None:
    """Read ``4GB``, ``500MB`` or plain bytes."""
    try:
        return parse_bytes(text) if text else None
    except BadConfig as error:
        raise UsageError(str(error)) from error
