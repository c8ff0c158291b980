"""An exported detector as one ONNX file: graph, weights and card, without custom operators."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from iadbe import system
from iadbe.errors import BadDetector, Missing
from iadbe.exporting.program import Program
from iadbe.runtime.inspector import KEY

OPSET = 18  # ONNX Runtime 1.20 and OpenVINO 2025.0 know it
MOST_IMAGES, SHORTEST, LONGEST = 2**12, 8, 2**15  # images at a time, and pixels of a side
SCOPES = "pkg.torch.onnx.name_scopes"  # of a node: the modules that it belongs to
EXAMPLE = (2, 80, 72, 3)  # a batch of one, or equal sides, would be taken for constants


def traced(program: Program) -> torch.export.ExportedProgram:
    """Return the program's graph, for any number of images of any size. Raises :class:`BadDetector`."""
    example = _example(program)
    count = torch.export.Dim("images", min=1, max=MOST_IMAGES)
    height, width = (torch.export.Dim(name, min=SHORTEST, max=LONGEST) for name in ("height", "width"))
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(
                program, (example,), dynamic_shapes={"image": {0: count, 1: height, 2: width}}, strict=False
            )
    except Exception as error:  # of any operation that has no place in a graph
        why = " ".join(str(error).split())[:160]
        name = type(program.detector).__name__
        raise BadDetector(f"{name} cannot be written as a graph ({type(error).__name__}: {why}).") from error


def _example(program: Program) -> Tensor:
    return program.input_of(np.zeros(EXAMPLE, np.uint8))


def can_write() -> bool:
    """Whether the packages that write ONNX files are installed."""
    return all(find_spec(package) is not None for package in ("onnx", "onnxscript"))


def write(program: Program, card: Mapping[str, Any], file: Path) -> Path:
    """Write the program to ``file``, whole or not at all. Raises :class:`BadDetector`, :class:`Missing`."""
    if not can_write():
        raise Missing("writing ONNX files takes more packages. Install them with: pip install 'iadbe[onnxruntime]'")
    graph = traced(program)
    with torch.no_grad():
        outputs = list(program(_example(program)))  # their names; some detectors have maps with some parameters only
    try:
        with torch.no_grad(), quiet():
            made = torch.onnx.export(
                graph, (), input_names=["image"], output_names=outputs, dynamo=True, verbose=False, opset_version=OPSET
            )
    except Exception as error:  # of an operation without a counterpart
        why = " ".join(str(error).split())[:160]
        name = type(program.detector).__name__
        raise BadDetector(f"{name} has an operation that ONNX lacks ({type(error).__name__}: {why}).") from error
    assert made is not None
    _forget_source(made.model.graph)
    made.model.metadata_props[KEY] = json.dumps({**card, "localises": "anomaly_map" in outputs})
    made.model.producer_name, made.model.producer_version = "IADBE", str(card["iadbe"])
    with system.replacing(file) as part:
        made.save(part)
    return file


def _forget_source(graph: Any) -> None:
    """Remove what the converter notes of source lines and local paths; keep the modules that nodes belong to."""
    graph.metadata_props.clear()
    for node in graph:
        scopes = node.metadata_props.get(SCOPES)
        node.metadata_props.clear()
        if scopes is not None:
            node.metadata_props[SCOPES] = scopes
        for value in node.outputs:
            value.metadata_props.clear()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the converters print and log to themselves; what goes wrong raises an exception."""
    level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(level)


def example_images(count: int, height: int, width: int) -> Tensor:
    """Return images (N, H, W, 3) uint8 of a pattern without repetition, for comparisons."""
    source = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, height, width, 3), generator=source, dtype=torch.uint8)
