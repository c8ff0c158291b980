import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadbe.layers.blocks.diffusion_unet import Attention, DiffusionUNet, ResidualBlock, group_norm, scales, sinusoids


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def randomised(module):
    """Draw all parameters, also those that start at 0."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


def test_parameters_are_as_many_as_in_the_published_network():
    """ADM's unconditional ImageNet model of 256 x 256 pixels has 552 814 086, as its authors' log says."""
    with torch.device("meta"):
        net = DiffusionUNet(3, 6, 256, *scales(256), head_channels=64, modulated=True)
    assert sum(p.numel() for p in net.parameters()) == 552_814_086


def test_a_block_adds_the_time_or_scales_and_shifts_by_it():
    x, embedded = drawn(2, 8, 6, 6), drawn(2, 12, seed=1)
    for modulated in (False, True):
        block = randomised(ResidualBlock(8, 4, 12, modulated))
        made = block.embedded[1](embedded * embedded.sigmoid())[:, :, None, None]
        inner = block.convolution(F.silu(F.group_norm(x, 2, block.start[0].weight, block.start[0].bias)))
        if modulated:
            inner = block.norm(inner) * (1 + made[:, :4]) + made[:, 4:]
        else:
            inner = block.norm(inner + made)
        expected = block.shortcut(x) + block.end[1](F.silu(inner))
        torch.testing.assert_close(block(x, embedded), expected)


def test_a_block_halves_by_means_and_doubles_by_repetition_or_transposed_convolutions():
    x, embedded = drawn(1, 4, 6, 6), drawn(1, 8, seed=1)
    halving = randomised(ResidualBlock(4, 4, 8, resize="halve"))
    halving.end[1].weight.data.zero_()
    halving.end[1].bias.data.zero_()
    means = x.view(1, 4, 3, 2, 3, 2).mean((3, 5))
    torch.testing.assert_close(halving(x, embedded), means)
    doubling = randomised(ResidualBlock(4, 4, 8, resize="double"))
    doubling.end[1].weight.data.zero_()
    doubling.end[1].bias.data.zero_()
    repeated = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(doubling(x, embedded, (12, 12)), repeated)
    untimed = randomised(ResidualBlock(4, 4, 0, resize="double"))
    of_branch, of_x = untimed.doubling
    expected = of_x(x) + untimed.convolution(of_branch(untimed.start(x)))
    torch.testing.assert_close(untimed(x, None, (12, 12)), expected)
    assert untimed(x, None, (11, 12)).shape == (1, 4, 11, 12)


def test_attention_is_the_softmax_over_all_positions():
    net, x = randomised(Attention(8, 2)), drawn(2, 8, 3, 4)
    values = net.qkv(net.norm(x)).flatten(2)  # (B, 24, N)
    query, key, value = values.view(2, 3, 2, 4, 12).unbind(1)  # (B, heads, d, N)
    expected = torch.zeros(2, 2, 4, 12)
    for b in range(2):
        for head in range(2):
            for i in range(12):
                weight = torch.softmax(key[b, head].T @ query[b, head, :, i] / math.sqrt(4), 0)
                expected[b, head, :, i] = value[b, head] @ weight
    torch.testing.assert_close(net(x), x + net.out(expected.reshape(2, 8, 3, 4)))


def test_the_network_is_what_its_definition_says():
    """Two scales, step by step with the modules' weights."""
    net = randomised(DiffusionUNet(3, 2, 8, (1, 2), (2,), heads=2))
    x, time = drawn(2, 3, 8, 8), torch.tensor([3, 700])
    embedded = net.time(sinusoids(time, 8))
    a = net.first(x)
    b = net.down[0](a, embedded)
    c = net.down[1](b, embedded)
    d = net.down[2](c, embedded)
    e = net.down[3](d, embedded)
    f = net.down[4](e, embedded)
    y = f
    for stage in net.middle:
        y = stage(y, embedded)
    for stage, beside in zip(net.up[:3], (f, e, d), strict=True):
        y = stage(torch.cat([y, beside], 1), embedded)
    y = net.doubling[0](y, embedded, (8, 8))
    for stage, beside in zip(net.up[3:], (c, b, a), strict=True):
        y = stage(torch.cat([y, beside], 1), embedded)
    torch.testing.assert_close(net(x, time), net.last(y))
    assert [s.attention is not None for s in (*net.down, *net.middle, *net.up)] == [
        *(False, False, False, True, True),
        *(True, False),
        *(True, True, True, False, False, False),
    ]
    assert d.shape == (2, 8, 4, 4)


def test_at_first_the_output_is_0_and_the_time_matters_once_it_is_trained():
    torch.manual_seed(0)
    net, x = DiffusionUNet(3, 3, 8, (1, 2), (2,)), drawn(1, 3, 8, 8)
    assert not net(x, torch.tensor([5])).any()
    randomised(net)
    assert not torch.allclose(net(x, torch.tensor([5])), net(x, torch.tensor([900])))


@pytest.mark.parametrize("size", [(13, 20), (1, 1), (32, 8)])
def test_any_size_is_kept_with_and_without_a_time(size):
    x = drawn(1, 3, *size)
    assert DiffusionUNet(3, 2, 8, (1, 2, 2), (4,))(x, torch.tensor([1])).shape == (1, 2, *size)
    untimed = DiffusionUNet(3, 2, 8, (1, 2, 2), (4,), timed=False)
    assert untimed(x).shape == (1, 2, *size)
    assert not any(isinstance(m, nn.Linear) for m in untimed.modules())
    with pytest.raises(ValueError, match="takes a time"):
        untimed(x, torch.tensor([1]))


def test_scales_are_those_of_the_authors():
    assert scales(256) == ((1, 1, 2, 2, 4, 4), (8, 16, 32))
    assert scales(128) == ((1, 1, 2, 3, 4), (4, 8, 16))
    assert scales(64) == ((1, 2, 3, 4), (2, 4, 8))
    assert scales(512) == ((0.5, 1, 1, 2, 2, 4, 4), (16, 32, 64))
    assert scales(64, 8) == ((1, 2, 3, 4), (8,))
    assert scales(16, 32) == ((1, 2, 3, 4), (1, 2))


def test_sinusoids_have_wavelengths_from_one_to_ten_thousand():
    time = torch.tensor([0, 7])
    expected = [[f(t / 10_000 ** (k / 3)) for f in (math.cos, math.sin) for k in range(3)] for t in (0, 7)]
    torch.testing.assert_close(sinusoids(time, 6), torch.tensor(expected), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (256, 32), (384, 32), (64, 16), (12, 1), (10, 2), (3, 1)])
def test_groups_have_four_channels_at_least(channels, groups):
    assert group_norm(channels).num_groups == groups
