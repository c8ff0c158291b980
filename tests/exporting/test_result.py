"""Writing a model to a file and comparing it with torch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from exported_models import golden, random_image
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig, BadDetector
from iadbe.exporting.precision_cost import PrecisionCost, TooCostly
from iadbe.exporting.result import write
from iadbe.exporting.trial import Trial
from iadbe.runtime import references
from iadbe.runtime.inspector import KEY
from iadbe.runtime.regions import RegionRule
from iadbe.runtime.verification import verify
from iadbe.runtime.zones import Zone


def test_an_onnx_file_agrees_with_torch(tmp_path):
    pytest.importorskip("onnxruntime")
    found = write(golden(), tmp_path / "new" / "golden", images=[random_image(90, 50)])
    assert found.file == tmp_path / "new" / "golden.onnx"
    assert found.parity.holds
    assert found.parity.images == 1


def test_reference_images_are_kept_beside_it(tmp_path):
    found = write(golden(), tmp_path / "golden.onnx")
    assert found.references == tmp_path / "golden.reference.npz"
    kept, model = references.read(found.references)
    assert (len(kept.images), kept.source, found.source) == (4, "drawn patterns", "drawn patterns")
    assert model == references.digest(found.file)


def test_half_precision_is_smaller_and_judged_by_its_own_tolerance(tmp_path):
    pytest.importorskip("onnxruntime")
    toy = Toy()
    shown = [toy.image(sample) for sample in toy.samples() if sample.category == "metal" and sample.is_anomaly][:4]
    whole, half = (write(golden(), tmp_path / f"{p}.onnx", "onnx", shown, p) for p in ("fp32", "fp16"))
    assert half.bytes < 0.9 * whole.bytes
    assert whole.parity.score < half.parity.score
    assert half.parity.tolerance == 1e-2
    assert not half.parity.holds  # golden subtracts local means, which half precision of its mean image does not bear


def test_an_unknown_precision_names_the_known_ones(tmp_path):
    with pytest.raises(BadConfig, match="fp32, fp16"):
        write(golden(), tmp_path / "x.onnx", precision="fp8")
    with pytest.raises(BadConfig, match="own precision"):
        write(golden(), tmp_path / "x.pt2", "torch", precision="fp16")


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
        (golden(), "x.onnx", "tflite", BadConfig, "There are: onnx, openvino, torch"),
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


def test_patterns_have_the_proportions_of_zones(tmp_path):
    pytest.importorskip("onnxruntime")
    rule = RegionRule(1, 0, (Zone.of_mask("edge", np.ones((90, 50), bool)),))
    calibration = replace(golden().calibration, rule=rule, pixel_threshold=0.3)
    found = write(replace(golden(), calibration=calibration), tmp_path / "golden.onnx")
    assert found.parity.holds
    assert references.read(found.references)[0].images[0].shape == (90, 50, 3)


@pytest.mark.parametrize("force", [False, True])
def test_int8_that_costs_too_much_is_kept_only_by_force(tmp_path, monkeypatch, force):
    pytest.importorskip("onnxruntime")
    cost = PrecisionCost("onnxruntime", 10, 0.5, 0.2, 0, (20, 10), (2.0, 1.0))
    monkeypatch.setattr("iadbe.exporting.integer_precision.quantise", lambda file, parts, inputs: 1)
    monkeypatch.setattr("iadbe.exporting.precision_cost.measure", lambda *_: cost)
    images = [random_image(40, 50, seed) for seed in range(2)]
    file, trial = tmp_path / "x.onnx", Trial(force=force)
    if not force:
        with pytest.raises(TooCostly, match="int8 costs more than 0.01; --force keeps such a file"):
            write(golden(), file, precision="int8", images=images, trial=trial)
        assert not list(tmp_path.iterdir())
        return
    found = write(golden(), file, precision="int8", images=images, trial=trial)
    assert found.cost == cost
    assert found.parity is None  # its scores are not those of torch
    assert verify(file, runs=20).passed  # against what it computed here


def test_int8_takes_a_backbone(tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(BadConfig, match="no backbone of convolutions"):
        write(golden(), tmp_path / "x.onnx", precision="int8", images=[random_image(40, 50)])
