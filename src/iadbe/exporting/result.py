"""Write a fitted detector to one file of a format, and compare the file with torch."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from iadbe import progress, registry, system
from iadbe.errors import BadConfig, BadDetector, Missing
from iadbe.exporting import (
    ENDINGS,
    PRECISIONS,
    STEPS,
    half_precision,
    integer_precision,
    onnx_file,
    openvino_file,
    precision_cost,
)  # fmt: skip
from iadbe.exporting.card import card_of
from iadbe.exporting.origins import Origin, check
from iadbe.exporting.parity import TOLERANCE, by_file, reference
from iadbe.exporting.precision_cost import PrecisionCost
from iadbe.exporting.program import Program
from iadbe.exporting.trial import Trial
from iadbe.networks.backbone import Backbone
from iadbe.parameters import NEEDS_DEPTH, complete, why_not_exportable
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.deviation import Deviation, compare
from iadbe.runtime.file_parts import parts_of
from iadbe.runtime.inspector import ENDINGS as ENGINES_OF
from iadbe.runtime.inspector import KEY, Inspector
from iadbe.runtime.references import beside, chosen

SIDES = (256, 320)  # height and width of drawn patterns, where there are no images
PATTERNS = 4


@dataclass(frozen=True, slots=True)
class Exported:
    """A file, and how far it is from torch; None where no runtime is installed to compare with."""

    file: Path
    parity: Deviation | None
    references: Path | None = None  # the images that `iadbe verify` compares, with torch's results
    source: str = ""  # what these images are
    origins: tuple[Origin, ...] = ()  # what went into it
    cost: PrecisionCost | None = None  # of int8, against fp32
    detector: str = ""

    @property
    def files(self) -> list[Path]:
        """The file; of OpenVINO's pair, both files."""
        return parts_of(self.file)

    @property
    def bytes(self) -> int:
        """The size of its files."""
        return sum(file.stat().st_size for file in self.files)

    @property
    def size(self) -> str:
        """The file's size as text."""
        return f"{self.bytes / 1e6:.1f} MB"


def write(
    fitted: FittedDetector,
    file: Path | None = None,
    to: str = "onnx",
    images: Sequence[np.ndarray] = (),
    precision: str = "fp32",
    source: str = "given images",
    allowed: Collection[str] = (),
    trial: Trial | None = None,
) -> Exported:
    """Write a fitted detector to one file, keep reference images beside it, and compare the file with torch on them.

    Args:
        fitted: a loaded model
        file: where; None: the detector's name in the working directory
        to: onnx, openvino (NAME.xml with NAME.bin beside it) or torch
        images: (H, W, 3) uint8, of any sizes, that file and torch both score; none: patterns
        precision: of the weights: fp32; fp16, which is computed in fp32; int8, of which activations of a backbone are
            too, scaled by ``images``
        source: what the images are, for who reads the comparison
        allowed: what the user has said of licences: see :mod:`iadbe.exporting.origins`
        trial: of int8: test images, and what it may cost

    Raises:
        TooCostly: for int8 that costs more than ``trial`` tolerates; no file is written then
        BadConfig: for an unknown format or precision, a model that a file cannot hold, or a licence that forbids it
        BadDetector: for a detector that cannot be written as a graph, or whose scores are not finite
    """
    file = _target(fitted, file, to, precision)
    _check(fitted)
    card = {**card_of(fitted, allowed), "precision": precision}
    origins = tuple(Origin(**one) for one in card["origins"])
    check(origins, allowed)
    file.parent.mkdir(parents=True, exist_ok=True)
    progress.report("convert", 1, STEPS)
    program = Program(fitted).eval()
    if to == "torch":
        return Exported(_write_torch(program, json.dumps(card), file), None, origins=origins)
    engine = next((engine for engine in ENGINES_OF[file.suffix] if find_spec(engine)), None)
    shown = list(images) or [image.numpy() for image in onnx_file.example_images(PATTERNS, *_sides(fitted))]
    kept = reference(program, chosen(shown), source if images else "drawn patterns", TOLERANCE[precision])
    with tempfile.TemporaryDirectory(prefix="iadbe-", ignore_cleanup_errors=True) as folder:
        made = onnx_file.write(program, card, Path(folder) / "program.onnx")
        if precision == "fp16":
            half_precision.compress(made)
        cost = _quantised(program, made, images, trial or Trial(), engine) if precision == "int8" else None
        place(made, file)
    progress.report("compare", 2, STEPS)
    inspector = Inspector(file, engine, threads=torch.get_num_threads()) if engine else None
    parity = compare(inspector, kept) if inspector and cost is None else None
    if inspector and cost is not None:
        kept = by_file(inspector, kept)
    archive = kept.write(beside(file), file)
    return Exported(file, parity, archive, kept.source, origins, cost, fitted.name)


def _quantised(
    program: Program, made: Path, images: Sequence[np.ndarray], trial: Trial, engine: str | None
) -> PrecisionCost:
    """Quantise an ONNX file in place; return what that costs. Raises :class:`TooCostly`."""
    if find_spec("onnxruntime") is None or engine is None:
        raise Missing("int8 takes ONNX Runtime's quantiser. Install it with: pip install 'iadbe[onnxruntime]'")
    whole = made.with_name(f"fp32{made.suffix}")
    shutil.copyfile(made, whole)
    backbones = [name for name, module in program.named_modules() if isinstance(module, Backbone)]
    inputs = [program.input_of(image[None]).numpy() for image in chosen(images)] if images else []
    integer_precision.quantise(made, backbones, inputs)
    tested = [*trial.good, *trial.bad]
    truth = [False] * len(trial.good) + [True] * len(trial.bad)
    cost = precision_cost.measure(whole, made, engine, tested or list(images), truth)
    if not (trial.force or cost.within(trial.tolerance)):
        raise precision_cost.TooCostly(
            "\n".join([*cost.lines(), f"int8 costs more than {trial.tolerance:g}; --force keeps such a file."])
        )
    return cost


def place(made: Path, file: Path) -> None:
    """Put a finished ONNX file where it belongs, in the format that the ending of ``file`` means."""
    if file.suffix == ENDINGS["openvino"]:
        openvino_file.write(made, file)
        return
    with system.replacing(file) as part:
        shutil.copyfile(made, part)


def _target(fitted: FittedDetector, file: Path | None, to: str, precision: str) -> Path:
    """Return the file to write. Raises :class:`BadConfig` for what does not fit together."""
    if to not in ENDINGS:
        raise BadConfig(f"there is no format {to!r}. There are: {', '.join(ENDINGS)}.")
    if precision not in PRECISIONS:
        raise BadConfig(f"there is no precision {precision!r}. There are: {', '.join(PRECISIONS)}.")
    if to == "torch" and precision != "fp32":
        raise BadConfig(f"a torch program keeps the model's own precision, not {precision}. Take onnx or openvino.")
    file = Path(f"{fitted.name}{ENDINGS[to]}") if file is None else file
    file = file if file.suffix else file.with_name(file.name + ENDINGS[to])
    if file.suffix != ENDINGS[to]:
        raise BadConfig(f"{file.name} does not end in {ENDINGS[to]}. Name another file, or another format with --to.")
    return file


def _sides(fitted: FittedDetector) -> tuple[int, int]:
    """Return height and width of patterns: those of the regions that a model is drawn for, else any."""
    if fitted.region is not None:
        return fitted.region.shape[0], fitted.region.shape[1]
    rule = fitted.calibration.rule
    return rule.zones[0].size if rule is not None and rule.zones else SIDES


def _check(fitted: FittedDetector) -> None:
    """Raise :class:`BadConfig` for what a file cannot hold yet, :class:`BadDetector` for what it never can."""
    if fitted.templates:
        raise BadConfig(
            "this model registers images to a reference (--align), which exported files cannot do (docs/alignment.md)."
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
