"""Run ids and seeds. A run's random numbers depend on its identity alone, never on earlier runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from iadbe.parameters import original_names
from iadbe.types import RunSpec


def run_id(spec: RunSpec) -> str:
    """Return the 12 hex digits that name a run. Equal ids, equal numbers; ``place`` has no part in it."""
    named = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "place"} | _params(spec)
    return hashlib.sha256(_canonical(named).encode()).hexdigest()[:12]


def seed_for(spec: RunSpec, purpose: str) -> int:
    """Return a 32-bit seed. ``"split"`` ignores the detector, so that all detectors see the same images."""
    named = _params(spec)
    parts: list[Any] = [spec.dataset, spec.data, named["dataset_params"], spec.setting, named["setting_params"]]
    parts += [spec.task, spec.seed]
    if purpose != "split":
        parts += [spec.detector, named["detector_params"], spec.protocol]
    return int.from_bytes(hashlib.sha256(_canonical([purpose, *parts]).encode()).digest()[:4], "big")


def _params(spec: RunSpec) -> dict[str, dict[str, Any]]:
    """Return the parameters under their first names, so that renaming one changes no run's identity."""
    return {
        "detector_params": original_names("detectors", spec.detector, spec.detector_params),
        "dataset_params": original_names("datasets", spec.dataset, spec.dataset_params),
        "setting_params": original_names("settings", spec.setting, spec.setting_params),
    }


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be part of a run's identity")
