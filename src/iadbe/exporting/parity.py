"""What torch computes for reference images, and how far an exported file is from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from iadbe.errors import BadDetector
from iadbe.exporting.program import Program
from iadbe.runtime.deviation import Deviation
from iadbe.runtime.deviation import compare as compare_file
from iadbe.runtime.inspector import Inspection, Inspector, decided
from iadbe.runtime.references import References, kept_size, stride_of
from iadbe.runtime.verdict import VERDICTS

TOLERANCE = {"fp32": 1e-4, "fp16": 1e-2, "int8": 5e-2}  # relative difference of scores and maps, by precision


def reference(
    program: Program, images: Sequence[np.ndarray], source: str = "given images", tolerance: float = TOLERANCE["fp32"]
) -> References:
    """Return images (H, W, 3) uint8 with what torch computes for them; they are made smaller where they are large."""
    kept = tuple(kept_size(image) for image in images)
    strides = tuple(stride_of(image) for image in kept)
    expected = tuple(_by_torch(program, image, stride) for image, stride in zip(kept, strides, strict=True))
    height, width = images[0].shape[:2]
    return References(kept, expected, strides, (height, width), source, tolerance, program.calibration.high or 0.0)


def compare(program: Program, file: Path, images: Sequence[np.ndarray], engine: str = "auto") -> Deviation:
    """Score images (H, W, 3) uint8, of any sizes, by torch and by the file."""
    inspector = Inspector(file, engine, threads=torch.get_num_threads())
    return compare_file(inspector, reference(program, images))


def by_file(inspector: Inspector, kept: References) -> References:
    """Return reference images with what a file computes here: of int8, whose scores are not those of torch."""
    found = [inspector(image) for image in kept.images]
    maps = [
        None if one.anomaly_map is None else np.ascontiguousarray(one.anomaly_map[::stride, ::stride])
        for one, stride in zip(found, kept.strides, strict=True)
    ]
    own = tuple(replace(one, anomaly_map=map_) for one, map_ in zip(found, maps, strict=True))
    return replace(kept, expected=own)


def _by_torch(program: Program, image: np.ndarray, stride: int) -> Inspection:
    with torch.no_grad():
        output = {name: value[0].numpy() for name, value in program(program.input_of(image[None])).items()}
    map_ = output.get("anomaly_map")
    if not np.isfinite(output["score"]) or (map_ is not None and not np.isfinite(map_).all()):
        name = type(program.detector).__name__
        raise BadDetector(f"{name} gives a score or a map that is not finite for a reference image. Train it anew.")
    probability = float(output["probability"])
    found = Inspection(
        float(output["score"]),
        None if np.isnan(probability) else probability,
        VERDICTS[int(output["verdict"])],
        map_,
    )
    found = decided(found, asdict(program.calibration))
    map_ = found.anomaly_map
    return replace(found, anomaly_map=None if map_ is None else np.ascontiguousarray(map_[::stride, ::stride]))
