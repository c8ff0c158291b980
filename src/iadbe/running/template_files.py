"""The references of a saved model that registers images: their pixels in a file, and what its card says of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from iadbe.data.alignment import Template
from iadbe.errors import BadConfig, BadData
from iadbe.protocol import Limits

FILE = "templates.safetensors"
MOST_PIXELS = 2**16  # of a side
FIELDS = {"category", "size", "limits", "floor"}


def write(folder: Path, templates: Mapping[str, Template]) -> list[dict[str, Any]]:
    """Write the pixels of the reference of each category; return what the model's card says of them."""
    save_file({str(i): t.pixels for i, t in enumerate(templates.values())}, folder / FILE)
    return [
        {"category": category, "size": list(t.size), "limits": str(t.limits), "floor": t.floor}
        for category, t in templates.items()
    ]


def read(folder: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, Template]:
    """Return the reference of each category. Raises :class:`BadData` where the file and the card do not fit."""
    pixels = load_file(folder / FILE) if entries else {}
    found = {}
    for number, entry in enumerate(entries):
        own = pixels.get(str(number))
        if own is None or own.ndim != 2 or own.dtype != np.float32 or not np.isfinite(own).all():
            raise BadData(f"{FILE} has no reference for {entry['category']}")
        height, width = entry["size"]
        found[entry["category"]] = Template(own, (height, width), Limits.parse(entry["limits"]), float(entry["floor"]))
    return found


def is_valid(value: Any) -> bool:
    """Return whether a card's entries are what :func:`write` returns."""
    return isinstance(value, list) and all(isinstance(entry, dict) and _is_entry(entry) for entry in value)


def _is_entry(entry: Mapping[str, Any]) -> bool:
    if set(entry) != FIELDS or not isinstance(entry["category"], str) or not isinstance(entry["limits"], str):
        return False
    try:
        Limits.parse(entry["limits"])
    except BadConfig:
        return False
    size, floor = entry["size"], entry["floor"]
    sides = isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= MOST_PIXELS for n in size)
    return sides and isinstance(floor, (int, float)) and not isinstance(floor, bool) and math.isfinite(floor)
