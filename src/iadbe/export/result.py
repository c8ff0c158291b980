"""Write a fitted detector to one file of a format, and compare the file with torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from iadbe import registry, system
from iadbe.errors import BadConfig, BadDetector
from iadbe.export import ENDINGS, onnx_file
from iadbe.export.card import card_of
from iadbe.export.parity import Parity, compare
from iadbe.export.program import Program
from iadbe.parameters import NEEDS_DEPTH, complete, why_not_exportable
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.inspector import ENGINES, KEY

SIDES = (256, 320)  # height and width of the patterns that are compared where no images are given
PATTERNS = 2


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, and how far it is from torch; None where no runtime is installed to compare with."""

    file: Path
    parity: Parity | None

    @property
    def size(self) -> str:
        """The file's size as text."""
        return f"{self.file.stat().st_size / 1e6:.1f} MB"


def write(
    fitted: FittedDetector, file: Path | None = None, to: str = "onnx", images: Sequence[np.ndarray] = ()
) -> Exported:
    """Write a fitted detector to one file and compare it with torch.

    Args:
        fitted: a loaded model
        file: where; None: the detector's name in the working directory
        to: onnx or torch
        images: (H, W, 3) uint8, of any sizes, that file and torch both score; none: patterns

    Raises:
        BadConfig: for an unknown format, or a model that a file cannot hold
        BadDetector: for a detector that cannot be written as a graph
    """
    if to not in ENDINGS:
        raise BadConfig(f"there is no format {to!r}. There are: {', '.join(ENDINGS)}.")
    _check(fitted)
    file = Path(f"{fitted.name}{ENDINGS[to]}") if file is None else file
    file = file if file.suffix else file.with_name(file.name + ENDINGS[to])
    if file.suffix != ENDINGS[to]:
        raise BadConfig(f"{file.name} does not end in {ENDINGS[to]}. Name another file, or another format with --to.")
    file.parent.mkdir(parents=True, exist_ok=True)
    program, card = Program(fitted).eval(), card_of(fitted)
    if to == "torch":
        return Exported(_write_torch(program, json.dumps(card), file), None)
    onnx_file.write(program, card, file)
    if not any(find_spec(engine) for engine in ENGINES):
        return Exported(file, None)
    sides = SIDES if fitted.region is None else fitted.region.shape
    shown = list(images) or [image.numpy() for image in onnx_file.example_images(PATTERNS, *sides)]
    return Exported(file, compare(program, file, shown))


def _check(fitted: FittedDetector) -> None:
    """Raise :class:`BadConfig` for what a file cannot hold yet, :class:`BadDetector` for what it never can."""
    if fitted.templates:
        raise BadConfig(
            "this model registers images to a reference (--align), which an exported file cannot do (docs/alignment.md)."
        )
    own = registry.card("detectors", fitted.name)
    why = why_not_exportable(own, complete(own, fitted.params)) or fitted.detector.not_exportable
    if why := why or (NEEDS_DEPTH if "depth" in fitted.detector.needs else ""):
        raise BadDetector(f"{fitted.name} cannot be exported: {why}.")


def _write_torch(program: Program, card: str, file: Path) -> Path:
    """Write a torch.export program, whole or not at all."""
    graph = onnx_file.traced(program)
    with system.replacing(file) as part:
        torch.export.save(graph, part, extra_files={KEY: card})
    return file
