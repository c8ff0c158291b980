"""Builds the command line that repeats a stored run. Only parameters that differ from their defaults are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from iadbe import registry, system
from iadbe.errors import IadbeError
from iadbe.results.names import format_value
from iadbe.types import RunResult, RunSpec

WITHOUT_FOLDER = ("toy", "elpv")  # datasets that need no folder


def command(result: RunResult) -> str:
    """Return the command line, with placeholders for paths of data and weights, which results do not hold."""
    spec = result.spec
    words = ["iadbe", "train", "--detector", spec.detector]
    words += _options("detector", "detectors", spec.detector, spec.detector_params)
    words += ["--data", spec.dataset]
    words += [] if spec.dataset in WITHOUT_FOLDER else ["--data.root", "DIR"]
    words += _options("data", "datasets", spec.dataset, spec.dataset_params)
    if categories := _categories(result):
        words += ["--data.category", ",".join(categories)]
    if spec.setting != "vanilla":
        words += ["--setting", spec.setting]
    words += _options("setting", "settings", spec.setting, spec.setting_params)
    words += ["--seed", str(spec.seed), "--protocol", spec.protocol]
    words += ["--metrics", ",".join(spec.metrics)] if spec.metrics else []
    return system.command_line(words)


def non_default(registry_name: str, name: str, params: Mapping[str, Any]) -> set[str]:
    """Return the names of the parameters that differ from their defaults; all where the defaults are unknown."""
    try:
        defaults = {p.name: format_value(p.default) for p in registry.card(registry_name, name).parameters}
    except (IadbeError, ImportError, OSError, SyntaxError):
        defaults = {}
    return {k for k, v in params.items() if defaults.get(k) != format_value(v)}


def _options(option: str, registry_name: str, name: str, params: Mapping[str, Any]) -> list[str]:
    shown_names = non_default(registry_name, name, params)
    return [word for k, v in sorted(params.items()) if k in shown_names for word in (f"--{option}.{k}", _text(v))]


def _categories(result: RunResult) -> list[str]:
    found = sorted({s.category for s in result.scores})
    return found or ([result.spec.task] if _is_category(result.spec) else [])


def _is_category(spec: RunSpec) -> bool:
    return spec.setting in ("vanilla", "few_shot", "noisy")


def _text(value: Any) -> str:
    if isinstance(value, str):
        file = value.startswith("file:")
        return f"FILE/{format_value(value)}" if file else value
    return json.dumps(list(value) if isinstance(value, tuple) else value)
