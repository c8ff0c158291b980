"""Backbones in 8-bit integers: convolutions are quantised, what leaves the backbone and the rest stay in float32."""

import numpy as np
import pytest

from iadbe.errors import BadConfig
from iadbe.exporting.integer_precision import quantise
from iadbe.exporting.onnx_file import SCOPES

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
PART = "detector.backbone"


@pytest.fixture
def file(tmp_path):
    """A graph of three convolutions, the last of which is added to the one before, and the mean of the sum."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {f"w{i}": rng.normal(0, 0.2, (8, (i and 8) or 3, 3, 3)).astype(np.float32) for i in range(3)}
    constants = {**weights, "zero": np.float32(0), "six": np.float32(6), "scale": np.float32(64)}
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["scaled"], "scaling"),
        helper.make_node("Transpose", ["scaled"], ["first"], "transpose", perm=[0, 3, 1, 2]),
    ]
    inside = []
    for i, (given, made) in enumerate([("first", "a"), ("a_", "b"), ("b_", "c")]):
        inside.append(helper.make_node("Conv", [given, f"w{i}"], [made], f"conv{i}", pads=[1] * 4))
        if i < 2:
            inside.append(helper.make_node("Clip", [made, "zero", "six"], [f"{made}_"], f"clip{i}"))
    inside.append(helper.make_node("Add", ["b_", "c"], ["features"], "add"))
    for node in inside:
        node.metadata_props.add(key=SCOPES, value=f"['', '{PART}', 'x']")
    last = helper.make_node("ReduceMean", ["features"], ["score"], "mean", keepdims=0)
    ends = [
        helper.make_tensor_value_info("image", TensorProto.UINT8, [1, None, None, 3]),
        helper.make_tensor_value_info("score", TensorProto.FLOAT, []),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph([*nodes, *inside, last], "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.helper.set_model_props(model, {"iadbe": "the card"})
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def images(count):
    return [np.random.default_rng(seed).integers(0, 256, (1, 20, 24, 3), dtype=np.uint8) for seed in range(count)]


def score(file, image):
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return float(session.run(None, {"image": image})[0])


def test_convolutions_are_quantised_but_the_first_and_scores_stay_close(file):
    before = [score(file, image) for image in images(3)]
    size = file.stat().st_size
    assert quantise(file, [PART], images(4)) == 2
    model = onnx.load(file)
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    assert kinds["w0"] == onnx.TensorProto.FLOAT
    assert kinds["w1_quantized"] == kinds["w2_quantized"] == onnx.TensorProto.INT8
    after = [score(file, image) for image in images(3)]
    assert after != before
    assert np.allclose(after, before, rtol=0.05)
    assert {entry.key: entry.value for entry in model.metadata_props} == {"iadbe": "the card"}
    assert file.stat().st_size != size


def test_what_leaves_the_backbone_is_not_rounded(file):
    quantise(file, [PART], images(2))
    made = {name: node for node in onnx.load(file).graph.node for name in node.output}
    assert made["score"].input[0] == "features"
    assert made["features"].op_type == "Add"
    assert made["features"].input[1] == "c"  # not a rounded value of the last convolution


def test_openvino_computes_it_too(file):
    openvino = pytest.importorskip("openvino")
    quantise(file, [PART], images(4))
    compiled = openvino.Core().compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for image in images(3):
        assert float(compiled(image)[0]) == pytest.approx(score(file, image), rel=0.02)


def test_without_images_or_convolutions_it_is_refused(file):
    with pytest.raises(BadConfig, match="give some with --images"):
        quantise(file, [PART], [])
    with pytest.raises(BadConfig, match="no backbone of convolutions"):
        quantise(file, ["detector.other"], images(1))
