import pytest
import torch
from torch import nn

from iadbe.errors import BadConfig
from iadbe.layers.blocks.next_stage import next_stage
from iadbe.networks.backbone import Backbone


@pytest.mark.parametrize(("name", "layer"), [("resnet18", 3), ("resnet10t", 2), ("tf_efficientnet_lite0", 3)])
def test_layer_and_next_stage_are_the_next_layer(name, layer):
    stage, channels = next_stage(name, layer, "none")
    before, after = Backbone(name, (layer, layer + 1), "none")(torch.rand(2, 3, 64, 64))
    torch.testing.assert_close(stage(before), after, rtol=1e-4, atol=1e-4)
    assert channels == after.shape[1]
    assert all(p.requires_grad for p in stage.parameters())


def test_it_has_the_weights_of_the_backbone():
    stage, _ = next_stage("tf_efficientnet_lite0.in1k", 3)
    before, after = Backbone("tf_efficientnet_lite0.in1k", (3, 4))(torch.rand(1, 3, 64, 64))
    torch.testing.assert_close(stage(before), after, rtol=1e-4, atol=1e-4)


def test_the_last_layer_has_no_next_stage():
    with pytest.raises(BadConfig, match="0 to 4, not"):
        next_stage("resnet10t", 4, "none")


@pytest.mark.parametrize("fault", ["hidden", "elsewhere"])
def test_a_network_that_is_no_chain_is_refused(monkeypatch, fault):
    """Something between two stages that is no module, or stages in different parts of the network."""

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3)
            self.part = nn.ModuleDict({"two": self.two})
            self.feature_info = [{"module": "one"}, {"module": "two" if fault == "hidden" else "part.two"}]

    class Whole:
        layers, channels, network = (0, 1), (4, 5), Network()

        def __init__(self, name, layers, weights):
            pass

        def __call__(self, image):
            before = self.network.one(image)
            return [before, self.network.two(before * (2 if fault == "hidden" else 1))]

    monkeypatch.setattr("iadbe.layers.blocks.next_stage.Backbone", Whole)
    with pytest.raises(BadConfig, match="odd is no chain of stages after its layer 0"):
        next_stage("odd", 0)
