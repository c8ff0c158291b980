"""A fitted detector is a folder: ``detector.json`` says what it is, ``weights.safetensors`` holds what it learnt.

Nothing is ever unpickled, and nothing else is needed: the backbone's weights are in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_model

from iadbe.backbone import Backbone
from iadbe.detector import Detector
from iadbe.errors import BadConfig, BadData
from iadbe.images import View
from iadbe.parameters import FILE
from iadbe.registry import load as load_class

FORMAT = 1
CARD = "detector.json"
TENSORS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Calibration:
    """The scale of a fitted detector's scores, fixed once: never per picture, never per test set."""

    how: str = ""  # one sentence: from what the numbers below were taken
    threshold: float | None = None  # image score above which a part is defective
    pixel_threshold: float | None = None
    low: float | None = None  # map value shown as 0
    high: float | None = None  # map value shown as 1


@dataclass(frozen=True, slots=True)
class Saved:
    """A loaded detector and what is known of it."""

    detector: Detector
    name: str
    params: Mapping[str, Any]
    calibration: Calibration
    about: Mapping[str, Any] = field(default_factory=dict)  # run id, dataset, task, versions


def save(
    folder: Path,
    detector: Detector,
    name: str,
    params: Mapping[str, Any],
    calibration: Calibration | None = None,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write a fitted detector into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "format": FORMAT,
        "detector": name,
        "params": dict(params),
        "version": detector.version,
        "view": asdict(detector.view),
        "weights": [[b.fingerprint, b.source] for b in _backbones(detector)],
        "calibration": asdict(calibration or Calibration()),
        "about": dict(about or {}),
    }
    save_model(detector, str(folder / TENSORS))
    (folder / CARD).write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return folder


def load(folder: str | Path, device: str = "cpu") -> Saved:
    """Read a fitted detector; ``folder`` may also be a run's folder that holds one."""
    folder = Path(folder).expanduser()
    if folder.suffix in (".ckpt", ".pt", ".pth", ".onnx"):
        raise BadConfig(f"{folder} was made by another tool. Train again with `iadbe train` and give its model folder.")
    folder = folder / "model" if (folder / "model" / CARD).is_file() else folder
    if not (folder / CARD).is_file():
        raise BadConfig(f"{folder} is not a model folder: it has no {CARD}. `iadbe train` makes one.")
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
        tensors = load_file(folder / TENSORS)
    except (ValueError, OSError, SafetensorError) as error:
        raise BadData(f"{folder} cannot be read as a model: {error}. Train it again.") from error
    if card["format"] != FORMAT:
        raise BadConfig(f"{folder} was written by another version of IADBE (format {card['format']}).")
    kind = load_class("detectors", card["detector"])
    detector = kind(**{k: _without_file(k, v) for k, v in card["params"].items()})
    detector.load_tensors(tensors)
    for backbone, (fingerprint, source) in zip(_backbones(detector), card["weights"], strict=True):
        backbone.fingerprint, backbone.source = fingerprint, source
        backbone.network.to(memory_format=torch.channels_last)
    detector.view = View(**card["view"])
    detector.to(torch.device(device)).eval()
    return Saved(detector, card["detector"], card["params"], Calibration(**card["calibration"]), card["about"])


def _without_file(name: str, value: Any) -> Any:
    """Ask for no file: everything that was read from one is among the saved tensors."""
    if name == "weights":
        return "none"
    return "" if isinstance(value, str) and value.startswith(FILE) else value


def _backbones(detector: Detector) -> list[Backbone]:
    return [m for m in detector.modules() if isinstance(m, Backbone)]
