"""A run's random numbers follow from what it is, never from what ran before it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from iadbe.types import RunSpec


def run_id(spec: RunSpec) -> str:
    """Return the 12 hex digits that name a run. Equal ids, equal numbers; ``place`` has no part in it."""
    named = {f.name: getattr(spec, f.name) for f in fields(spec) if f.name != "place"}
    return hashlib.sha256(_canonical(named).encode()).hexdigest()[:12]


def seed_for(spec: RunSpec, purpose: str) -> int:
    """Return a 32-bit seed. ``"split"`` ignores the detector, so that all detectors see the same pictures."""
    parts: list[Any] = [spec.dataset, spec.data, spec.dataset_params, spec.setting, spec.setting_params, spec.task]
    parts.append(spec.seed)
    if purpose != "split":
        parts += [spec.detector, spec.detector_params, spec.protocol]
    return int.from_bytes(hashlib.sha256(_canonical([purpose, *parts]).encode()).digest()[:4], "big")


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, (frozenset, set)):
        return sorted(value)
    raise TypeError(f"{value!r} cannot be part of a run's identity")
