"""An exported detector as OpenVINO's pair of files: NAME.xml, the graph with its card, and NAME.bin, the weights.

The graph is read from the ONNX file, so both formats compute the same. The card is where OpenVINO puts the metadata of
ONNX files, in ``rt_info`` under ``framework``. Weights keep the precision that they have.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from iadbe import system
from iadbe.errors import Missing
from iadbe.runtime.openvino_core import openvino_core


def write(source: Path, file: Path) -> Path:
    """Write the ONNX file ``source`` as ``file`` (.xml) and the .bin beside it. Raises :class:`Missing`."""
    if find_spec("openvino") is None:
        raise Missing("writing OpenVINO's files takes OpenVINO. Install it with: pip install 'iadbe[openvino]'")
    import openvino

    model = openvino_core().read_model(str(source))
    with system.replacing(file) as part, system.replacing(weights_of(file)):  # the parts are named alike
        openvino.save_model(model, str(part), compress_to_fp16=False)
    return file


def weights_of(file: Path) -> Path:
    """Return the file of the weights that belongs to a graph's file."""
    return file.with_suffix(".bin")
