"""ONNX files: one graph for any number of images of any size."""

import json

import numpy as np
import pytest
import torch

from exported_models import golden, random_image
from iadbe.errors import BadDetector
from iadbe.exporting import onnx_file
from iadbe.exporting.card import card_of
from iadbe.exporting.program import Program
from iadbe.runtime.inspector import KEY

onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    fitted = golden()
    file = onnx_file.write(Program(fitted).eval(), card_of(fitted), tmp_path_factory.mktemp("onnx") / "golden.onnx")
    return onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 40, 90), (2, 200, 31)], ids=str)
def test_any_number_of_images_of_any_size(session, shape):
    count, height, width = shape
    images = np.stack([random_image(height, width, seed) for seed in range(count)])
    score, probability, map_, verdict = session.run(None, {"image": images})
    with torch.no_grad():
        expected = Program(golden()).eval()(torch.from_numpy(images))
    assert np.allclose(score, expected["score"], rtol=1e-4)
    assert np.allclose(probability, expected["probability"], atol=1e-4)
    assert map_.shape == shape
    assert np.allclose(map_, expected["anomaly_map"], atol=1e-4)
    assert np.array_equal(verdict, expected["verdict"])


def test_the_file_says_what_it_is(session):
    card = json.loads(session.get_modelmeta().custom_metadata_map[KEY])
    assert card["detector"] == "golden"
    assert session.get_modelmeta().producer_name == "IADBE"
    assert [output.name for output in session.get_outputs()] == ["score", "probability", "anomaly_map", "verdict"]


def test_the_file_tells_nothing_of_the_machine_that_made_it(tmp_path):
    file = onnx_file.write(Program(golden()).eval(), card_of(golden()), tmp_path / "golden.onnx")
    content = file.read_bytes()
    assert b".py" not in content
    assert str(tmp_path).encode() not in content
    assert onnx_file.SCOPES.encode() in content


def test_what_cannot_be_a_graph_is_one_sentence(tmp_path):
    class Branching(type(golden().detector)):
        def predict(self, batch):
            return super().predict(batch) if float(batch.image.sum()) > 0 else None

    program = Program(golden()).eval()
    program.detector.__class__ = Branching
    with pytest.raises(BadDetector, match="Branching cannot be written as a graph"):
        onnx_file.write(program, card_of(golden()), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())
