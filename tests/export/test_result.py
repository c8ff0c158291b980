"""Writing a model to a file and comparing it with torch."""

from dataclasses import replace

import pytest
import torch

from exported_models import golden, random_image
from iadbe.errors import BadConfig, BadDetector
from iadbe.export.result import write
from iadbe.runtime.inspector import KEY


def test_an_onnx_file_agrees_with_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    found = write(golden(), tmp_path / "new" / "golden", images=[random_image(90, 50)])
    assert found.file == tmp_path / "new" / "golden.onnx"
    assert found.parity.holds
    assert found.parity.images == 1


def test_a_torch_program_holds_the_card(tmp_path):
    found = write(golden(), tmp_path / "golden.pt2", to="torch")
    extra = {KEY: ""}
    program = torch.export.load(found.file, extra_files=extra).module()
    image = torch.from_numpy(random_image(44, 55))[None]
    assert '"golden"' in extra[KEY]
    assert program(image)["anomaly_map"].shape == (1, 44, 55)


@pytest.mark.parametrize(
    ("fitted", "file", "to", "error", "says"),
    [
        (golden(), "x.onnx", "tflite", BadConfig, "There are: onnx, torch"),
        (golden(), "x.xml", "onnx", BadConfig, "does not end in .onnx"),
        (replace(golden(), templates={"a": None}), "x.onnx", "onnx", BadConfig, "registers images"),
    ],
)
def test_what_cannot_be_written_is_one_sentence(tmp_path, fitted, file, to, error, says):
    with pytest.raises(error, match=says):
        write(fitted, tmp_path / file, to)
    assert not list(tmp_path.iterdir())


def test_a_detector_that_needs_depth_takes_no_images_alone(tmp_path):
    fitted = golden()
    detector = torch.nn.Module.__new__(type(fitted.detector))
    detector.__dict__.update(fitted.detector.__dict__, needs=frozenset({"image", "depth"}))
    with pytest.raises(BadDetector, match="needs depth"):
        write(replace(fitted, detector=detector), tmp_path / "x.onnx")
