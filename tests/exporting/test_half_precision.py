"""Weights in half precision: half the size, small constants as they were."""

import numpy as np
import pytest

from exported_models import golden
from iadbe.datasets.toy import Toy
from iadbe.exporting import half_precision, onnx_file
from iadbe.exporting.card import card_of
from iadbe.exporting.program import Program
from iadbe.runtime.inspector import Inspector

onnx = pytest.importorskip("onnx")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("half")
    whole = onnx_file.write(Program(golden()).eval(), card_of(golden()), folder / "whole.onnx")
    half = folder / "half.onnx"
    half.write_bytes(whole.read_bytes())
    assert half_precision.compress(half) > 0
    return whole, half


def test_large_tensors_are_halved_and_small_ones_kept(files):
    kinds = {t.name: (t.data_type, np.prod(t.dims)) for t in onnx.load(files[1]).graph.initializer}
    for kind, size in kinds.values():
        assert kind != onnx.TensorProto.FLOAT or size < half_precision.SMALLEST
    assert any(kind == onnx.TensorProto.FLOAT16 for kind, _ in kinds.values())


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_both_runtimes_compute_it(files, engine):
    pytest.importorskip(engine)
    image = Toy().image(next(s for s in Toy().samples() if s.category == "metal" and s.is_anomaly))
    whole, half = (Inspector(file, engine, 1)(image) for file in files)
    assert half.anomaly_map.shape == whole.anomaly_map.shape
    assert np.isfinite(half.anomaly_map).all()
    assert 0.5 < half.score / whole.score < 2
    assert half.score != whole.score


def test_what_float16_cannot_hold_is_kept(tmp_path):
    from onnx import TensorProto, helper, numpy_helper

    large = numpy_helper.from_array(np.full(1000, 1e6, np.float32), "large")
    node = helper.make_node("Add", ["x", "large"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1000]) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], [large])), tmp_path / "x.onnx")
    assert half_precision.compress(tmp_path / "x.onnx") == 0
