import pytest
import timm
import torch
from torch import nn

from iadbe.layers.blocks.student import student_network


def test_weights_are_random_and_follow_from_torchs_generator():
    made = []
    for seed in (0, 0, 1):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            made.append(torch.cat([p.detach().flatten() for p in student_network("resnet10t", (1, 2)).parameters()]))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "resnet18"])
def test_a_student_is_the_architecture_up_to_the_last_wanted_layer(name):
    network = student_network(name, (2, 1))
    whole = timm.create_model(name, pretrained=False).state_dict()
    own = network.state_dict()
    assert len(own) < 0.8 * len(whole)
    assert all(whole[key].shape == value.shape for key, value in own.items())


@torch.no_grad()
def test_scales_can_start_at_1():
    scales = []
    for unit in (False, True):
        norms = [m for m in student_network("resnet18", (1,), unit).modules() if isinstance(m, nn.BatchNorm2d)]
        scales.append(torch.cat([m.weight for m in norms]))
    assert float(scales[0].min()) == 0
    assert torch.equal(scales[1], torch.ones_like(scales[1]))


def test_statistics_follow_within_few_steps():
    network = student_network("tf_efficientnet_lite0", (1, 2))
    rates = {m.momentum for m in network.modules() if isinstance(m, nn.BatchNorm2d)}
    assert rates == {0.1}
