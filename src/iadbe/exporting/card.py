"""The card that travels inside an exported file: what it is, where it comes from, how its numbers are to be read."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import asdict
from typing import Any

import iadbe
from iadbe import registry
from iadbe.exporting.origins import as_card, origins_of
from iadbe.running.model_folder import FittedDetector
from iadbe.running.tiled_detector import TiledDetector
from iadbe.runtime.inspector import FORMAT

ABOUT = ("run", "dataset", "task", "seed", "setting", "protocol")  # of a model's card, as far as it has them


def card_of(fitted: FittedDetector, allowed: Collection[str] = ()) -> dict[str, Any]:
    """Return the card of an exported detector, of values that JSON has; ``allowed``: see ``origins.ALLOWED``."""
    own = registry.card("detectors", fitted.name)
    images = _fingerprint(fitted.learnt)
    origins = origins_of(fitted, str(images["sha256"]) if images else "", allowed)
    detector = fitted.detector
    return {
        "format": FORMAT,
        "iadbe": iadbe.__version__,
        "detector": fitted.name,
        "params": dict(fitted.params),
        "version": detector.version,
        "paper": own.get("paper", ""),
        "weights": detector.weights(),
        "view": asdict(detector.view),
        **({"tiling": str(detector.tiling)} if isinstance(detector, TiledDetector) else {}),
        "intensity": None if fitted.intensity is None else asdict(fitted.intensity),
        "localises": "localise" in detector.can,
        "ignores": fitted.region is not None,
        "calibration": asdict(fitted.calibration),
        "about": {key: fitted.about[key] for key in ABOUT if key in fitted.about},
        "training_images": images,
        "origins": as_card(origins),
        "allowed": sorted(allowed),
    }


def _fingerprint(learnt: frozenset[str] | None) -> Mapping[str, Any] | None:
    """Return the number of training images and a digest of their digests; None where they are not known."""
    if learnt is None:
        return None
    digest = hashlib.sha256(" ".join(sorted(learnt)).encode()).hexdigest()
    return {"count": len(learnt), "sha256": digest}
