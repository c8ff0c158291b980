"""Who carries out a frozen network's arithmetic: torch, or on a processor another engine that does the same faster.

ONNX Runtime and OpenVINO are extras. A network is translated when it first sees images of a size; the translation is
compared with torch there and then, and how far they are apart is said with the weights in every result.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from contextvars import ContextVar
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from iadbe.errors import BadConfig, Missing, UnknownName, did_you_mean

NEEDS = {"torch": (), "onnxruntime": ("onnxruntime", "onnxscript"), "openvino": ("openvino",)}
APART = 1e-3  # of a layer's length: an engine that differs by more does not do what was asked
Layers = Callable[[Tensor], list[Tensor]]  # (B, 3, H, W), normalised -> one tensor (B, C, h, w) per layer
_engine: ContextVar[str] = ContextVar("engine", default="torch")


@contextmanager
def using(name: str) -> Iterator[None]:
    """Let backbones that are made in the block compute with this engine."""
    token = _engine.set(checked(name))
    try:
        yield
    finally:
        _engine.reset(token)


def current() -> str:
    """Return the engine in use."""
    return _engine.get()


def checked(name: str) -> str:
    """Return ``name`` if it is an engine that is installed."""
    if name not in NEEDS:
        raise UnknownName(f"there is no engine {name!r}.{did_you_mean(name, NEEDS)} There are: {', '.join(NEEDS)}.")
    if any(find_spec(package) is None for package in NEEDS[name]):
        raise Missing(f"the engine {name} is not installed. Bring it with: pip install 'iadbe[{name}]'")
    return name


def full_name(name: str) -> str:
    """Return an engine's name with its version."""
    return f"{name} {version(NEEDS[name][0]) if NEEDS[name] else torch.__version__}"


@torch.no_grad()
def translated(network: nn.Module, example: Tensor, name: str) -> tuple[Layers, float]:
    """Return a function that does what ``network`` (from a tensor to a tuple of them) does, and how far it is off.

    ``example`` (B, 3, H, W) says for which size; the number of images stays free. The distance is relative to a
    layer's length, the largest of all layers.
    """
    if example.device.type != "cpu":
        raise BadConfig(f"the engine {name} computes on a processor. Take --device cpu with it, or --engine torch.")
    expected = network(example)
    with warnings.catch_warnings(), redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore")  # of the translators, about themselves
        run = (_openvino if name == "openvino" else _onnxruntime)(network, example)
    apart = max(float(torch.dist(a, b) / b.norm()) for a, b in zip(run(example), expected, strict=True))
    if not apart <= APART:
        raise BadConfig(f"{full_name(name)} computes this network wrongly (off by {apart:.1e}). Take --engine torch.")
    return run, apart


def _openvino(network: nn.Module, example: Tensor) -> Layers:
    import openvino

    model = openvino.convert_model(network, example_input=example)
    model.reshape({model.inputs[0]: [-1, *example.shape[1:]]})
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    compiled = _openvinos_core().compile_model(model, "CPU", settings)
    # a copy: the engine writes its next answer where this one lies
    return lambda image: [torch.from_numpy(v.copy()) for v in compiled(image.contiguous().numpy()).values()]


@cache
def _openvinos_core() -> Any:
    """Return one core for the whole life of the process.

    Each core gives the thread that makes it a stack for signals. Of two that go in the order in which they came, the
    second restores the first one's, which has gone, and the next signal (Ctrl-C) is the end of the process.
    """
    import openvino

    return openvino.Core()


def _onnxruntime(network: nn.Module, example: Tensor) -> Layers:
    import onnxruntime

    images = torch.export.Dim("images", min=1)
    several = example.repeat(2, 1, 1, 1)  # one image alone would be taken for always one
    with tempfile.TemporaryDirectory(prefix="iadbe-") as folder:
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
