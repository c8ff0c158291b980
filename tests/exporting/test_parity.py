"""Differences between a file and torch."""

import pytest
import torch

from exported_models import golden, random_image
from iadbe.exporting import parity
from iadbe.exporting.parity import compare, reference
from iadbe.exporting.program import Program
from iadbe.runtime.inspector import Inspection


class Off:
    """Stands for a file whose scores are too high by one in a thousand."""

    engine = "test"

    def __init__(self, file, engine="auto", threads=0):
        self.program = Program(golden()).eval()

    def __call__(self, image):
        with torch.no_grad():
            found = self.program(torch.from_numpy(image)[None])
        verdict = {0: "good", 2: "reject"}[int(found["verdict"])]
        return Inspection(float(found["score"]) * 1.001, 0.5, verdict, found["anomaly_map"][0].numpy())


def test_it_finds_what_is_off(monkeypatch):
    monkeypatch.setattr(parity, "Inspector", Off)
    found = compare(Program(golden()).eval(), "x.onnx", [random_image(50, 60), random_image(64, 64)])
    assert found.score == pytest.approx(1e-3, rel=0.01)
    assert (found.map, found.verdicts, found.images) == (0, 0, 2)
    assert not found.holds


def test_references_hold_what_torch_computes():
    image = random_image(300, 260)
    found = reference(Program(golden()).eval(), [image])
    with torch.no_grad():
        expected = Program(golden()).eval()(torch.from_numpy(image)[None])
    assert found.expected[0].score == pytest.approx(float(expected["score"][0]))
    assert found.strides == (2,)
    assert torch.equal(torch.from_numpy(found.expected[0].anomaly_map), expected["anomaly_map"][0, ::2, ::2])
    assert (found.native, found.map_scale) == ((300, 260), golden().calibration.high)
