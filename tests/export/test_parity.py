"""Differences between a file and torch."""

import numpy as np
import pytest
import torch

from exported_models import golden, random_image
from iadbe.export import parity
from iadbe.export.parity import Parity, compare
from iadbe.export.program import Program
from iadbe.runtime.inspector import Inspection


class Off:
    """Stands for a file whose scores are too high by one in a thousand."""

    engine = "test"

    def __init__(self, file, engine="auto", threads=0):
        self.program = Program(golden()).eval()

    def decided(self, found):
        return found

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


@pytest.mark.parametrize(
    ("score", "map_", "verdicts", "holds"), [(0, 1e-5, 0, True), (0, 1e-3, 0, False), (0, 0, 1, False)]
)
def test_scores_maps_and_verdicts_must_agree(score, map_, verdicts, holds):
    assert Parity(1, score, map_, verdicts, "test").holds is holds


def test_the_text_names_the_differences():
    text = str(Parity(3, 1e-6, 2e-6, 1, "onnxruntime"))
    assert text == "onnxruntime and torch on 3 images: scores within 1.0e-06, maps within 2.0e-06, 1 other verdicts"
    assert np.isfinite(parity.TOLERANCE)
