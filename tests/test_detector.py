import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import batch, images, parts
from iadbe.data.images import View
from iadbe.detector import Detector, generator
from iadbe.errors import BadDetector
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class Mean(Detector):
    """The least there is to a detector: the distance to the mean image, times a trained weight."""

    def __init__(self):
        super().__init__()
        self.register_buffer("image", torch.empty(0))
        self.head = nn.Linear(1, 1)

    def fit(self, train, rng):
        self.image = torch.cat([b.image for b in train.batches()]).mean(0)

    def predict(self, batch):
        distance = (batch.image - self.image).square().mean((1, 2, 3))
        return Prediction(self.head(distance[:, None]).squeeze(1))


@pytest.fixture
def fitted():
    detector = Mean()
    detector.fit(images(parts(4)), np.random.default_rng(0))
    return detector


def test_the_view_has_256_pixels_by_default():
    assert Mean().view == View(256)


def test_an_update_is_a_fit_unless_written(fitted):
    fitted.update(images(parts(4, seed=1)), np.random.default_rng(0))
    assert torch.equal(fitted.image, batch(parts(4, seed=1)).image.mean(0))


def test_a_detector_that_cannot_merge_says_so(fitted):
    with pytest.raises(BadDetector, match="Mean cannot merge"):
        fitted.merge([fitted])


def test_parameters_and_buffers_can_be_loaded(fitted):
    other = Mean()
    other.load_tensors(fitted.state_dict())
    shown = batch(parts(3, seed=2))
    assert torch.equal(other.predict(shown).score, fitted.predict(shown).score)
    assert isinstance(other.head.weight, nn.Parameter)


def test_saved_tensors_must_be_those_of_the_class(fitted):
    state = fitted.state_dict()
    with pytest.raises(BadDetector, match="lacks image"):
        Mean().load_tensors({k: v for k, v in state.items() if k != "image"})
    with pytest.raises(BadDetector, match=r"has head\.scale, which this version does not know"):
        Mean().load_tensors({**state, "head.scale": torch.zeros(1)})


def test_a_tensor_that_two_names_share_is_needed_only_once(fitted):
    class Tied(Mean):
        def __init__(self):
            super().__init__()
            self.twin = self.head

    state = {k: v for k, v in Tied().state_dict().items() if not k.startswith("twin")}
    Tied().load_tensors(state)


def test_the_weights_of_its_backbone_are_reported():
    class Seeing(Mean):
        def __init__(self):
            super().__init__()
            self.backbone = Backbone("resnet10t", (1,), "none")

    assert Mean().weights() == ""
    assert Seeing().weights().startswith("resnet10t: random-")


def test_the_generator_follows_from_the_seed():
    drawn = [torch.rand(3, generator=generator(np.random.default_rng(seed))) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_plugins_for_version_0_1_find_what_they_import():
    code = "from iadbe.images import Batch; from iadbe.backbone import Backbone; import iadbe; "
    code += "assert Batch is iadbe.Batch and Backbone is iadbe.Backbone"
    subprocess.run([sys.executable, "-c", code], check=True)


class _OldBrick(nn.Module):
    renamed_tensors = {"amount": "scale"}

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.zeros(1))


def test_tensors_under_old_names_are_found_wherever_they_lie():
    class Renamed(Mean):
        renamed_tensors = {"brick": "block"}

        def __init__(self):
            super().__init__()
            self.block = _OldBrick()

    detector = Renamed()
    tensors = {name: value for name, value in detector.state_dict().items() if not name.startswith("block")}
    detector.load_tensors({**tensors, "brick.amount": torch.ones(1)})
    assert detector.block.scale == 1
