"""Weights in half precision: half the size, computed in float32 as before.

Each large tensor of an ONNX file is stored as float16 and cast to float32 where it is used. Runtimes fold the cast when
they load the file, so speed and memory stay those of float32 on processors without arithmetic of 16 bits. OpenVINO's
``compress_to_fp16`` does the same to its own files. Small tensors are kept: they are constants of the view, whose
whole numbers float16 lacks, and weigh nothing. So is a tensor with values that float16 cannot hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iadbe import system

SMALLEST = 256  # values of a tensor that is stored in half precision
LARGEST = float(np.finfo(np.float16).max)


def compress(file: Path) -> int:
    """Store the large tensors of an ONNX file as float16, in place; return how many there are."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(file)
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        if values.size < SMALLEST or not np.abs(values).max() <= LARGEST:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.half"))
        casts.append(helper.make_node("Cast", [tensor.name], [name], f"{name}.cast", to=TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    with system.replacing(file) as part:
        onnx.save(model, part)
    return len(casts)
