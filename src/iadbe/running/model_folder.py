"""Save and load fitted detectors: a folder with ``detector.json`` (the card) and ``weights.safetensors``.

Nothing is unpickled. The file holds the backbone's weights too, so that nothing else is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from iadbe import registry, system
from iadbe.data.alignment import Template
from iadbe.data.images import View
from iadbe.detector import Detector, shared_tensors
from iadbe.errors import BadConfig, BadData, IadbeError, Missing
from iadbe.evaluation.calibration import Calibration, read
from iadbe.files.shapes import RunLengths, from_runs, runs_of
from iadbe.networks.backbone import Backbone
from iadbe.parameters import FILE, complete, current_names
from iadbe.protocol import Tiling
from iadbe.running import model_card, template_files
from iadbe.running.model_card import damaged
from iadbe.running.tiled_detector import TiledDetector
from iadbe.types import IntensityRange

CARD = model_card.FILE
TENSORS = "weights.safetensors"
DIGITS = 16  # of an image's digest that are kept: enough to recognise it


@dataclass(frozen=True, slots=True)
class FittedDetector:
    """A loaded detector with its parameters and calibration."""

    detector: Detector
    name: str
    params: Mapping[str, Any]
    calibration: Calibration
    about: Mapping[str, Any] = field(default_factory=dict)  # run id, dataset, task, versions
    learnt: frozenset[str] | None = None  # shortened digests of the training images; None: not known
    intensity: IntensityRange | None = None  # of deep images; None: it was fitted on 8-bit images
    region: np.ndarray | None = None  # (H, W) bool: which pixels of an image count; None: all, or by image
    templates: Mapping[str, Template] = field(default_factory=dict)  # by category: what its images were registered to
    note: str = ""  # what a user should know before trusting its scores

    def was_trained_on(self, key: str) -> bool:
        """Return whether this was a training image; ``key`` is the digest of :func:`iadbe.data.images.read_view`."""
        return self.learnt is not None and key[:DIGITS] in self.learnt


def save(
    folder: Path,
    detector: Detector,
    name: str,
    params: Mapping[str, Any],
    calibration: Calibration | None = None,
    about: Mapping[str, Any] | None = None,
    learnt: Collection[str] | None = None,
    intensity: IntensityRange | None = None,
    region: np.ndarray | None = None,
    templates: Mapping[str, Template] | None = None,
) -> Path:
    """Write a fitted detector into ``folder``; ``learnt`` are the digests of its training images in its view.

    ``intensity`` is the range by which its deep training images were scaled, ``region`` (H, W) bool which pixels of
    every image count, ``templates`` what images are registered to, by category.
    """
    folder.mkdir(parents=True, exist_ok=True)
    card = {
        "format": model_card.FORMAT,
        "detector": name,
        "params": dict(params),
        "version": detector.version,
        # what a view of earlier versions did not have is written where it is used
        "view": {k: v for k, v in asdict(detector.view).items() if k in ("resize", "crop") or v != getattr(View(), k)},
        "weights": [[b.fingerprint, b.source] for b in _backbones(detector)],
        "calibration": asdict(calibration or Calibration()),
        "about": dict(about or {}),
        "learnt": None if learnt is None else " ".join(sorted({key[:DIGITS] for key in learnt})),
        "intensity": None if intensity is None else asdict(intensity),
        **({"tiling": str(detector.tiling)} if isinstance(detector, TiledDetector) else {}),
        **({} if region is None else {"region": _region_card(region)}),
        **({"templates": template_files.write(folder, templates)} if templates else {}),
    }
    twice = shared_tensors(detector)
    tensors = {name: value.contiguous() for name, value in detector.state_dict().items() if name not in twice}
    save_file(tensors, folder / TENSORS)
    model_card.write(folder, card)
    return folder


def save_calibration(folder: str | Path, calibration: Calibration) -> Path:
    """Replace the calibration of a saved detector, whole or not at all; return the folder that holds it."""
    folder = resolve_folder(folder)
    card = model_card.read(folder)
    # the threshold holds for the scores of today's version
    model_card.write(folder, {**card, "calibration": asdict(calibration), "version": _version(card["detector"])})
    return folder


def resolve_folder(folder: str | Path) -> Path:
    """Return the folder of a model, which may be given by its run's folder."""
    folder = system.user_path(folder)
    if folder.suffix in (".onnx", ".xml"):
        raise BadConfig(f"{folder} is an exported file, which `iadbe predict` takes. Give the model folder here.")
    if folder.suffix in (".ckpt", ".pt", ".pth"):
        raise BadConfig(f"{folder} was made by another tool. Train again with `iadbe train` and give its model folder.")
    folder = folder / "model" if (folder / "model" / CARD).is_file() else folder
    if not (folder / CARD).is_file():
        raise BadConfig(f"{folder} is not a model folder: it has no {CARD}. `iadbe train` makes one.")
    return folder


def load(folder: str | Path, device: str = "cpu") -> FittedDetector:
    """Read a fitted detector; ``folder`` may also be a run's folder that holds one.

    Raises :class:`BadData` for a folder whose files are damaged or do not fit together.
    """
    folder = resolve_folder(folder)
    card = model_card.read(folder)
    try:
        tensors = load_file(folder / TENSORS)
        if system.MAPPED_FILES_ARE_LOCKED:  # a model that is in use can be removed, and trained anew
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        calibration = read(card["calibration"])
        templates = template_files.read(folder, card.get("templates") or ())
    except BadData as error:
        raise damaged(folder, str(error)) from error
    except (ValueError, TypeError, OSError, SafetensorError) as error:
        raise damaged(folder, str(error)) from error
    given = current_names("detectors", card["detector"], card["params"])
    params = complete(registry.card("detectors", card["detector"]), given)
    detector = _made(folder, card, params, tensors)
    detector.to(torch.device(device)).eval()
    version, now = card.get("version", detector.version), detector.version
    other = f"of version {version} of {card['detector']}; this is version {now}, whose scores may differ"
    if version != now and calibration.threshold is not None:
        calibration = replace(calibration, how=f"{calibration.how} ({other}: run `iadbe calibrate` again)")
    learnt = card.get("learnt")
    known = None if learnt is None else frozenset(learnt.split())
    intensity = model_card.intensity_of(card.get("intensity"))
    region = _region(folder, card["region"]) if card.get("region") else None
    return FittedDetector(
        detector, card["detector"], params, calibration, card["about"], known, intensity, region, templates,
        note="" if version == now else f"the model is {other}.",
    )  # fmt: skip


def _region_card(region: np.ndarray) -> dict[str, Any]:
    return {"size": list(region.shape), "runs": " ".join(map(str, runs_of(region).tolist()))}


def _region(folder: Path, card: Mapping[str, Any]) -> np.ndarray:
    height, width = card["size"]
    counts = np.array([int(run) for run in card["runs"].split()], np.int64)
    try:
        return from_runs(RunLengths("region", counts, height, width), str(folder))
    except BadData as error:
        raise damaged(folder, str(error).rstrip(".")) from error


def _version(name: str) -> int:
    return int(registry.card("detectors", name).get("version", 1))


def _made(
    folder: Path, card: Mapping[str, Any], params: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]
) -> Detector:
    """Create the detector that a card describes, and give it its tensors."""
    kind = registry.load("detectors", card["detector"])
    try:
        detector: Detector = kind(**{k: _without_file(k, v) for k, v in params.items()})
        view = View(**card["view"])
        if card.get("tiling"):
            detector = TiledDetector(detector, view, Tiling.parse(card["tiling"]))
        detector.load_tensors(tensors)
        for backbone, (fingerprint, source) in zip(_backbones(detector), card["weights"], strict=True):
            backbone.fingerprint, backbone.source = fingerprint, source
            backbone.network.to(memory_format=torch.channels_last)
        detector.view = view
    except Missing:
        raise
    except IadbeError as error:
        raise damaged(folder, str(error).rstrip(".")) from error
    except Exception as error:  # of tensors that do not belong to these parameters, and of networks of other versions
        raise damaged(folder, f"its tensors do not fit {card['detector']} ({type(error).__name__}: {error})") from error
    return detector


def _without_file(name: str, value: Any) -> Any:
    """Replace files by nothing: what was read from them is among the saved tensors."""
    if name == "weights":
        return "none"
    return "" if isinstance(value, str) and value.startswith(FILE) else value


def _backbones(detector: Detector) -> list[Backbone]:
    return [m for m in detector.modules() if isinstance(m, Backbone)]
