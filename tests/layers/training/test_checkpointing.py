import copy
from contextlib import nullcontext

import pytest
import torch

from iadbe.layers.blocks.student import student_network
from iadbe.layers.training.checkpointing import gradient_checkpointing, is_wide

IMAGE = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def walked(network, context):
    """Return all that two steps on the same images leave in a copy of the network, and what it gave."""
    network = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    with context(network):
        for _ in range(2):
            optimizer.zero_grad()
            found = network.forward_intermediates(IMAGE, indices=[1, 2], intermediates_only=True, stop_early=True)
            torch.stack([f.square().mean() for f in found]).sum().backward()
            optimizer.step()
    return network.state_dict(), found


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv2_050"])
def test_parameters_and_statistics_come_out_the_same(name):
    network = student_network(name, (1, 2))
    plain, expected = walked(network, lambda network: nullcontext())
    spared, found = walked(network, gradient_checkpointing)
    assert any(key.endswith("running_var") for key in plain)
    assert {int(v) for k, v in spared.items() if k.endswith("num_batches_tracked")} == {2}
    for key in plain:
        torch.testing.assert_close(spared[key], plain[key], rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_fewer_activations_are_kept_for_the_backward_pass():
    network = student_network("tf_efficientnet_lite0", (1, 2, 3)).train()
    kept = []
    for context in (nullcontext(), gradient_checkpointing(network)):
        sizes = {}

        def see(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with context, torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
            found = network.forward_intermediates(IMAGE, indices=[1, 2, 3], intermediates_only=True, stop_early=True)
        weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
        kept.append(sum(size for place, size in sizes.items() if place not in weights))
        del found
    assert kept[1] < 0.3 * kept[0]


def test_afterwards_the_network_is_as_it_was():
    network = student_network("tf_efficientnet_lite0", (1,))
    with gradient_checkpointing(network):
        assert any("forward" in vars(module) for module in network.modules())
    assert not any("forward" in vars(module) for module in network.modules())


def test_blocks_that_are_no_wider_inside_are_left_alone():
    assert not any(is_wide(module) for module in student_network("resnet18", (1, 2, 3)).modules())
    assert not any(is_wide(module) for module in student_network("resnet14t", (1, 2)).modules())
    assert sum(is_wide(module) for module in student_network("tf_efficientnet_lite0", (1, 2, 3)).modules()) == 11
