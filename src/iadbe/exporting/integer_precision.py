"""A backbone in 8-bit integers: static quantisation with good images, all other arithmetic in float32.

ONNX Runtime's quantiser writes the backbone's convolutions with 8-bit weights, one scale per output channel (signed),
and 8-bit activations (unsigned), as pairs of QuantizeLinear and DequantizeLinear, which both runtimes fuse into integer
operations. The range of every activation is what the given images have. Two things stay in float32: the first
convolution, whose three input channels suit no integer kernel, and the sums that leave the backbone, because a
memory bank compares them by distances.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import system
from iadbe.errors import BadConfig
from iadbe.exporting.onnx_file import SCOPES, quiet

OPERATIONS = ("Conv", "Relu", "Clip", "Add", "MaxPool")
ACTIVATIONS = ("Relu", "Clip")  # they are part of the convolution before them
FEWEST_CHANNELS = 4  # of the input of a convolution, more than which it is quantised


def quantise(file: Path, parts: Collection[str], inputs: Sequence[np.ndarray]) -> int:
    """Quantise the convolutions of an ONNX file, in place; return how many there are.

    Args:
        file: an exported program
        parts: names of the modules whose operations are quantised: the backbones
        inputs: good images as the program takes them, (1, H, W, C), of any sizes

    Raises:
        BadConfig: without images, and for a file without convolutions in these modules
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    if not inputs:
        raise BadConfig("int8 takes good images, by which activations are scaled: give some with --images.")
    model = onnx.load(file)
    names = _nodes(model, parts)
    count = sum(node.op_type == "Conv" for node in model.graph.node if node.name in names)
    if not count:
        raise BadConfig("this detector has no backbone of convolutions, which is what int8 is for. Take fp32 or fp16.")
    card = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory(prefix="iadbe-", ignore_cleanup_errors=True) as folder, quiet():
        made = Path(folder) / "quantised.onnx"
        quantize_static(
            str(file), str(made), _reader(inputs), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_quantize=sorted(names),
            op_types_to_quantize=list(OPERATIONS),
        )  # fmt: skip
        quantised = onnx.load(made)
    _keep_float(quantised, model, names)
    onnx.helper.set_model_props(quantised, card)
    quantised.producer_name, quantised.producer_version = model.producer_name, model.producer_version
    with system.replacing(file) as part:
        onnx.save(quantised, part)
    return count


def _nodes(model: Any, parts: Collection[str]) -> set[str]:
    """Return the names of the operations that are quantised."""
    inside = {node.name for node in model.graph.node if _belongs(node, parts)}
    leaving = {name for node in model.graph.node if node.name not in inside for name in node.input}
    leaving |= {output.name for output in model.graph.output}
    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    made = {output: node.name for node in model.graph.node for output in node.output}
    found: set[str] = set()
    for node in model.graph.node:
        if node.name not in inside or node.op_type not in OPERATIONS:
            continue
        if node.op_type == "Conv":
            group = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
            shape = weights.get(node.input[1])
            if shape is None or shape[1] * group <= FEWEST_CHANNELS:
                continue
        elif leaving & set(node.output) or (node.op_type in ACTIVATIONS and made.get(node.input[0]) not in found):
            continue
        found.add(node.name)
    return found


def _keep_float(model: Any, before: Any, names: Collection[str]) -> None:
    """Give all operations but those ``names`` the values in float32, in place of those that were rounded to 8 bits.

    The quantiser gives the rounded values to every operation that follows. A bank would compare rounded features then.
    Where it has made a clip part of a convolution's rounding, only the rounded value is left, and stays.
    """
    made, old = ({name: node.name for node in one.graph.node for name in node.output} for one in (model, before))
    given = {node.name: list(node.input) for node in before.graph.node if node.name not in names}
    for node in model.graph.node:
        for place, name in enumerate(given.get(node.name, ())):
            if name in made and made[name] == old[name]:
                node.input[place] = name


def _belongs(node: Any, parts: Collection[str]) -> bool:
    scopes = next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
    return any(f"'{part}'" in scopes for part in parts)


def _reader(inputs: Sequence[np.ndarray]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Gives the images one after the other."""

        def __init__(self) -> None:
            self.images: Iterator[np.ndarray] = iter(inputs)

        def get_next(self) -> Mapping[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {"image": image}

    return Reader()
