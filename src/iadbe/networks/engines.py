"""Inference engines of frozen networks: torch, or on a CPU ONNX Runtime or OpenVINO, which are faster.

ONNX Runtime and OpenVINO are extras. A network is compiled for every new image size. Its features are then compared
with those of torch; the relative difference is part of the weights' description in every result.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iadbe.errors import BadOption, Missing, did_you_mean
from iadbe.runtime.openvino_core import openvino_core

NEEDS = {"torch": (), "onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
TOLERANCE = 1e-3  # relative difference of a layer from torch; an engine with more is refused
Layers = Callable[[Tensor], list[Tensor]]  # (B, 3, H, W), normalised -> one tensor (B, C, h, w) per layer
_engine: ContextVar[str] = ContextVar("engine", default="torch")


@contextmanager
def using(name: str) -> Iterator[None]:
    """Make backbones that are created in the ``with`` block use this engine."""
    token = _engine.set(checked(name))
    try:
        yield
    finally:
        _engine.reset(token)


def current() -> str:
    """Return the name of the engine in use."""
    return _engine.get()


def checked(name: str) -> str:
    """Return ``name`` if it is an installed engine, else raise an error that says what to do."""
    if name not in NEEDS:
        raise BadOption(f"there is no engine {name!r}.{did_you_mean(name, NEEDS)} There are: {', '.join(NEEDS)}.")
    if any(find_spec(package) is None for package in NEEDS[name]):
        raise Missing(f"the engine {name} is not installed. Install it with: pip install 'iadbe[{name}]'")
    return name


def name_with_version(name: str) -> str:
    """Return the name of an engine with its version."""
    return f"{name} {version(NEEDS[name][0]) if NEEDS[name] else torch.__version__}"


@torch.no_grad()
def compiled(network: nn.Module, example: Tensor, name: str) -> tuple[Layers, float]:
    """Return a function that computes what ``network`` (from a tensor to a tuple of tensors) does, and its error.

    The function is for images of the size of ``example`` (B, 3, H, W), any number of them. The error is the largest
    relative difference of a layer.
    """
    if example.device.type != "cpu":
        raise BadOption(f"the engine {name} computes on a processor. Take --device cpu with it, or --engine torch.")
    expected = network(example)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")  # from the converters
        run = (_openvino if name == "openvino" else _onnxruntime)(network, example)
    apart = max(float(torch.dist(a, b) / b.norm()) for a, b in zip(run(example), expected, strict=True))
    if not apart <= TOLERANCE:
        raise BadOption(
            f"{name_with_version(name)} computes this network wrongly (off by {apart:.1e}). Take --engine torch."
        )
    return run, apart


def _openvino(network: nn.Module, example: Tensor) -> Layers:
    import openvino

    model = openvino.convert_model(network, example_input=example)
    model.reshape({model.inputs[0]: [-1, *example.shape[1:]]})
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino_core().compile_model(model, "CPU", settings)
    # a copy, as the engine reuses its output buffers
    return lambda image: [torch.from_numpy(v.copy()) for v in compiled(image.contiguous().numpy()).values()]


def _onnxruntime(network: nn.Module, example: Tensor) -> Layers:
    import onnxruntime

    images = torch.export.Dim("images", min=1)
    several = example.repeat(2, 1, 1, 1)  # a batch of one would be compiled as a constant
    with tempfile.TemporaryDirectory(prefix="iadbe-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (several,),
            file,
            input_names=["image"],
            dynamic_shapes=({0: images},),
            dynamo=True,
            verbose=False,
        )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda image: [torch.from_numpy(v) for v in session.run(None, {"image": image.contiguous().numpy()})]
