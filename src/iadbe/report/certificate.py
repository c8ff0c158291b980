"""The certificate of an exported file: one HTML page with verdict, checks, figures, machine and reference images.

It needs no network, no scripts and no other file.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from iadbe import __version__, system
from iadbe.report import colormap
from iadbe.report.embedded import embedded
from iadbe.report.single_page import rendered
from iadbe.runtime.inspector import Inspection
from iadbe.runtime.verification import Verification

TEMPLATE = Path(__file__).with_name("certificate.html.jinja")


class ImagePair(NamedTuple):
    """One reference image with torch's and the file's results."""

    image: str  # data URI
    expected_heat: str  # data URI; empty without maps
    heat: str
    expected: str  # score and verdict, as text
    found: str
    agrees: bool  # the verdicts are the same


def write(verification: Verification, file: Path) -> Path:
    """Write the certificate, whole or not at all. Raises :class:`Missing` without jinja2."""
    text = rendered(
        TEMPLATE, "the certificate",
        it=verification,
        checks=verification.checks(),
        figures=verification.figures(),
        machine=verification.machine(),
        origin=_origin(verification),
        pairs=_pairs(verification),
        legend=colormap.css(),
        version=__version__,
    )  # fmt: skip
    file.parent.mkdir(parents=True, exist_ok=True)
    with system.replacing(file) as part:
        part.write_text(text, encoding="utf-8")
    return file


def _origin(verification: Verification) -> dict[str, str]:
    """Return what the file is, by the card that it carries."""
    card = verification.card
    about = card.get("about") or {}
    learnt = card.get("training_images") or {}
    found = {
        "file": verification.file.name,
        "SHA-256": verification.digest,
        "detector": f"{card.get('detector', '')}, version {card.get('version', '')}",
        "precision": str(card.get("precision", "fp32")),
        "written by": f"IADBE {card.get('iadbe', '')}",
        "run": str(about.get("run", "")),
        "data": " ".join(str(about[key]) for key in ("dataset", "task") if key in about),
        "training images": f"{learnt['count']}, SHA-256 {learnt['sha256'][:16]}…" if learnt else "",
        "threshold": str((card.get("calibration") or {}).get("how", "")),
    }
    return {name: text for name, text in found.items() if text}


def _pairs(verification: Verification) -> list[ImagePair]:
    calibration = verification.card.get("calibration") or {}
    given = verification.references
    maps = [one.anomaly_map for one in given.expected if one.anomaly_map is not None]
    low, high = calibration.get("low"), calibration.get("high")
    if maps and (low is None or high is None):
        low, high = min(float(one.min()) for one in maps), max(float(one.max()) for one in maps)
    pairs = []
    for image, expected, found in zip(given.images, given.expected, verification.found, strict=True):
        first, second = (_heat(image, one.anomaly_map, low, high) for one in (expected, found))
        agrees = expected.verdict == found.verdict
        pairs.append(ImagePair(embedded(image), first, second, _text(expected), _text(found), agrees))
    return pairs


def _heat(image: np.ndarray, map_: np.ndarray | None, low: float | None, high: float | None) -> str:
    if map_ is None or low is None or high is None:
        return ""
    heat = ((map_ - low) / max(high - low, 1e-12)).clip(0, 1)
    return embedded(colormap.overlay(image, heat))


def _text(found: Inspection) -> str:
    return f"{found.score:.5g} {found.verdict}".strip()
