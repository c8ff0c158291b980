"""What the channels were like in the calibration: bins of values, and how many images fell into each.

Bins have their edges at quantiles of the calibration's values. Outside of them they grow in steps that double, so that
a drift that goes on is seen to go on. An image is its bins from then on: hours are kept as counts (:mod:`.history`).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import system
from iadbe.errors import BadData
from iadbe.monitoring.channels import CHANNELS

FILE = "drift.json"
LEAST = 20  # images of a calibration, below which nothing is watched
BINS = 20  # between the calibration's lowest and highest value, at most
OUTSIDE = 8  # on either side
FORMAT = 1


@dataclass(frozen=True)
class Channel:
    """The bins of one channel and the calibration's images in them."""

    edges: tuple[float, ...]  # (B - 1,), increasing
    counts: tuple[int, ...]  # (B,)
    mean: float

    def bin(self, value: float) -> int:
        """Return the bin of a value."""
        return int(np.searchsorted(self.edges, value, side="right"))


@dataclass(frozen=True)
class Reference:
    """The channels of a calibration, by name."""

    channels: Mapping[str, Channel]

    @property
    def key(self) -> str:
        """A digest: hours belong to the calibration that they are compared with."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> dict[str, Any]:
        """Return the reference as plain values."""
        channels = {n: {"edges": c.edges, "counts": c.counts, "mean": c.mean} for n, c in self.channels.items()}
        return {"format": FORMAT, "channels": channels}


def reference_of(images: Sequence[Mapping[str, float]]) -> Reference | None:
    """Return the reference of a calibration's images, each by channel; None where there are fewer than ``LEAST``.

    Values that are not finite are left out. A channel whose values are all equal tells nothing and is left out too.
    """
    channels = {}
    for name in CHANNELS:
        found = np.array([v for image in images if math.isfinite(v := image.get(name, math.nan))])
        if len(found) >= LEAST and found.min() < found.max():
            edges = _edges(found)
            counts = np.bincount(np.searchsorted(edges, found, side="right"), minlength=len(edges) + 1)
            channels[name] = Channel(tuple(map(float, edges)), tuple(map(int, counts)), float(found.mean()))
    return Reference(channels) if channels else None


def _edges(values: np.ndarray) -> np.ndarray:
    inner = np.quantile(values, np.linspace(0, 1, min(BINS, len(values) // 2) + 1))
    step = max(float(values.std()) / 4, 1e-9 * max(abs(float(values.min())), abs(float(values.max())), 1e-9))
    outer = step * (2.0 ** np.arange(OUTSIDE) - 1)[1:]
    return np.unique(np.concatenate([inner[0] - outer, inner, inner[-1] + outer]))


def write(folder: Path, reference: Reference | None) -> None:
    """Keep a reference beside a model; None removes the one that is there."""
    if reference is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    with system.replacing(folder / FILE) as staging:
        staging.write_text(json.dumps(reference.to_json()), encoding="utf-8")


def read(folder: Path) -> Reference | None:
    """Return the reference of a model's folder, or None; raises :class:`BadData` for one that is damaged."""
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format"] != FORMAT:
            raise BadData(f"{file} was written by a later version of IADBE, and this one cannot read it.")
        return Reference({str(n): _channel(c) for n, c in raw["channels"].items() if n in CHANNELS})
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise BadData(f"{file} is damaged ({error}). Run `iadbe calibrate` again.") from error


def _channel(raw: Mapping[str, Any]) -> Channel:
    edges, counts = tuple(map(float, raw["edges"])), tuple(map(int, raw["counts"]))
    if len(counts) != len(edges) + 1 or min(counts) < 0 or not all(map(math.isfinite, edges)):
        raise ValueError("bins and counts do not fit together")
    if list(edges) != sorted(set(edges)):
        raise ValueError("its bins are not in order")
    return Channel(edges, counts, float(raw["mean"]))
