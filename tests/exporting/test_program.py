"""What an exported file computes: the same as the detector in its view, with verdict and calibrated scale."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from exported_models import THRESHOLD, golden, random_image
from iadbe.data.images import Batch, View
from iadbe.exporting.program import Program, for_export
from iadbe.layers.statistics.gaussian import ExportedGaussians, PositionGaussians


def outputs(fitted, *images):
    with torch.no_grad():
        return Program(fitted).eval()(torch.from_numpy(np.stack(images)))


def test_score_and_map_are_those_of_the_detector():
    fitted, image = golden(), random_image(80, 70)
    view = fitted.detector.view
    shown = torch.from_numpy(view(image)).permute(2, 0, 1)[None].float() / 255
    expected = fitted.detector.predict(Batch(shown))
    found = outputs(fitted, image)
    assert torch.equal(found["score"], expected.score)
    native = view.to_native(expected.map[0].numpy(), image.shape[:2])
    assert np.allclose(found["anomaly_map"][0].numpy(), native, atol=1e-6)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite_has_no_verdict(score):
    program = Program(golden()).eval()
    assert program._verdict(torch.tensor([score, THRESHOLD - 0.1, THRESHOLD])).tolist() == [-1, 0, 2]


def test_probability_and_verdict_follow_the_calibration():
    fitted = golden()
    good = np.round(fitted.detector.references[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    found = outputs(fitted, good, random_image(64, 64))
    assert found["score"][0] < THRESHOLD < found["score"][1]
    assert found["verdict"].tolist() == [0, 2]
    expected = [fitted.calibration.scaled(float(score)) for score in found["score"]]
    assert found["probability"].tolist() == pytest.approx(expected, abs=1e-6)


def test_between_two_thresholds_a_part_is_to_be_looked_at():
    good, other, bad = random_image(64, 64, 1), random_image(64, 64, 2), random_image(64, 64, 3)
    scores = sorted(outputs(golden(), good, other, bad)["score"].tolist())
    calibration = replace(golden().calibration, threshold=scores[2], look_threshold=scores[1])
    found = outputs(replace(golden(), calibration=calibration), good, other, bad)
    assert [found["verdict"][i] for i in found["score"].argsort()] == [0, 1, 2]


def test_without_a_calibration_there_is_no_verdict():
    found = outputs(golden(calibrated=False), random_image(64, 64))
    assert found["verdict"].tolist() == [-1]
    assert torch.isnan(found["probability"]).all()


def test_padding_does_not_count():
    fitted = golden(View(64, fit="pad"))
    image = random_image(64, 20)
    view = fitted.detector.view
    shown = torch.from_numpy(view(image)).permute(2, 0, 1)[None].float() / 255
    region = torch.from_numpy(view.content(64, 20))[None]
    assert torch.equal(outputs(fitted, image)["score"], fitted.detector.predict(Batch(shown, region=region)).score)


def test_parts_with_a_form_for_export_are_replaced_in_a_copy():
    class Holder(nn.Module):
        def __init__(self):
            super().__init__()
            self.gaussians = PositionGaussians()
            self.activation = nn.ReLU6(inplace=True)

        def for_export(self):
            self.has_form = True
            return self

    holder, source = Holder(), torch.Generator().manual_seed(0)
    holder.gaussians.add([torch.randn(30, 5, 4, 4, generator=source)])
    holder.gaussians.factorise()
    own = for_export(holder)
    assert isinstance(own.gaussians, ExportedGaussians)
    assert isinstance(holder.gaussians, PositionGaussians)
    assert (own.has_form, hasattr(holder, "has_form")) == (True, False)
    assert (own.activation.inplace, holder.activation.inplace) == (False, True)
    layers = [torch.randn(2, 5, 4, 4, generator=source)]
    assert torch.allclose(own.gaussians.distance(layers), holder.gaussians.distance(layers), rtol=1e-4)
