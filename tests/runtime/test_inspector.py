"""Exported files run without torch."""

import subprocess
import sys
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest
import torch

from exported_models import golden, random_image
from iadbe.errors import BadConfig, BadData, BadDetector, UnknownName
from iadbe.exporting import onnx_file
from iadbe.exporting.card import card_of
from iadbe.exporting.program import Program
from iadbe.exporting.result import write
from iadbe.runtime.inspector import Inspector
from iadbe.runtime.regions import RegionRule, regions_of

pytest.importorskip("onnxruntime")
WITHOUT_TORCH = """
import sys
for name in ("torch", "timm", "scipy"):
    sys.modules[name] = None
import numpy as np
from iadbe.runtime.inspector import Inspector
found = Inspector(sys.argv[1])(np.zeros((40, 50, 3), np.uint8))
assert found.anomaly_map.shape == (40, 50)
print(found.verdict)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write(golden(), tmp_path_factory.mktemp("exported") / "golden.onnx").file


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_it_scores_as_torch_does(file, engine):
    pytest.importorskip(engine)
    images = np.stack([random_image(70, 90, seed) for seed in range(3)])
    with torch.no_grad():
        expected = Program(golden()).eval()(torch.from_numpy(images))
    inspector = Inspector(file, engine, threads=1)
    assert inspector.engine == engine
    assert inspector.card["detector"] == "golden"
    for found, score, map_ in zip(inspector.batch(images), expected["score"], expected["anomaly_map"], strict=True):
        assert found.score == pytest.approx(float(score), rel=1e-4)
        assert np.allclose(found.anomaly_map, map_, atol=1e-4)
        assert found.verdict == ("reject" if found.probability >= 0.5 else "good")


def test_it_needs_neither_torch_nor_timm_nor_scipy(file):
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH, str(file)], capture_output=True, text=True)
    assert done.stdout.strip() in ("good", "reject"), done.stderr


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_image_whose_score_is_not_finite_is_refused_never_good(tmp_path, engine):
    pytest.importorskip(engine)
    broken = deepcopy(golden())
    broken.detector.references.fill_(float("nan"))
    with pytest.raises(BadDetector, match="Golden gives a score or a map that is not finite"):
        write(broken, tmp_path / "broken.onnx")
    assert not list(tmp_path.iterdir())
    file = onnx_file.write(Program(broken).eval(), card_of(broken), tmp_path / "broken.onnx")
    with pytest.raises(BadData, match="broken.onnx gives a score or a map that is not finite"):
        Inspector(file, engine)(random_image(30, 30))


def test_without_a_calibration_there_is_no_verdict(tmp_path):
    found = Inspector(write(golden(calibrated=False), tmp_path / "x.onnx").file)(random_image(30, 30))
    assert (found.probability, found.verdict) == (None, "")


def test_the_verdict_follows_from_regions_where_the_model_has_a_rule(tmp_path):
    image = random_image(40, 50)
    whole = Inspector(write(golden(), tmp_path / "none.onnx").file)(image).anomaly_map
    threshold = float(np.quantile(whole, 0.9))
    rules = {"strict": RegionRule(), "lax": RegionRule(min_area=40 * 50)}
    for name, rule in rules.items():
        calibration = replace(golden().calibration, pixel_threshold=threshold, rule=rule, threshold=-9.0)
        exported = write(replace(golden(), calibration=calibration), tmp_path / f"{name}.onnx")
        assert exported.parity.verdicts == 0
        found = Inspector(exported.file)(image)
        assert found.verdict == ("reject" if name == "strict" else "good")
        assert list(found.regions) == regions_of(found.anomaly_map, threshold, rule)
    assert Inspector(tmp_path / "none.onnx")(image).regions is None


def test_bad_input_is_one_sentence(file, tmp_path):
    with pytest.raises(BadConfig, match="there is no file"):
        Inspector(tmp_path / "none.onnx")
    with pytest.raises(UnknownName, match="Did you mean onnxruntime"):
        Inspector(file, "onnxruntim")
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(BadData, match="cannot be loaded"):
        Inspector(tmp_path / "text.onnx")
    with pytest.raises(BadData, match="uint8"):
        Inspector(file)(np.zeros((30, 30, 3), np.float32))


def test_a_file_of_another_tool_is_refused(tmp_path):
    class Other(torch.nn.Module):
        def forward(self, image):
            return image + 1

    torch.onnx.export(Other().eval(), (torch.zeros(2, 3),), tmp_path / "other.onnx", dynamo=True, verbose=False)
    with pytest.raises(BadData, match="was not written by IADBE"):
        Inspector(tmp_path / "other.onnx")
