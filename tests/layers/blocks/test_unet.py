import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadbe.layers.blocks.unet import UNet, initialised_small


def test_a_u_net_is_what_its_definition_says():
    """Step by step, with the modules' weights: pool, convolve, double, put beside the encoder's output."""
    torch.manual_seed(0)
    net = UNet(2, 3, (4, 6, 8), ((6, 5), (4, 7))).eval()
    x = torch.rand(2, 2, 12, 16)
    first = net.down[0](x)
    second = net.down[1](F.max_pool2d(first, 2))
    third = net.down[2](F.max_pool2d(second, 2))

    def doubled(module, value):
        return module(F.interpolate(value, scale_factor=2, mode="bilinear", align_corners=True))

    up = net.up[0](torch.cat([doubled(net.doubling[0], third), second], 1))
    up = net.up[1](torch.cat([doubled(net.doubling[1], up), first], 1))
    torch.testing.assert_close(net(x), net.last(up))
    assert [c.out_channels for c in net.up[0] if isinstance(c, nn.Conv2d)] == [6, 5]


def test_without_skips_only_the_coarsest_scale_reaches_the_decoder():
    net = UNet(1, 1, (4, 8), ((4, 4),), skips=False).eval()
    x = torch.rand(1, 1, 8, 8)
    handle = net.down[1].register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    assert torch.equal(net(x), net(1 - x))
    handle.remove()
    assert not torch.equal(net(x), net(1 - x))


@pytest.mark.parametrize("size", [(37, 50), (1, 1), (64, 8)])
def test_any_size_is_kept(size):
    net = UNet(3, 2, (4, 4, 4, 4), ((4, 4),) * 3).eval()
    assert net(torch.rand(1, 3, *size)).shape == (1, 2, *size)


def test_parameters_are_as_many_as_in_the_authors_networks():
    """DRAEM's published networks have 69.05 and 28.37 million parameters."""
    mirrored, up = ((64, 32), (32, 16), (16, 8), (8, 8)), ((64, 64), (32, 32), (16, 16), (8, 8), (8, 8))
    with torch.device("meta"):
        large = UNet(3, 3, (128, 256, 512, 1024, 1024), [(16 * a, 16 * b) for a, b in mirrored], skips=False)
        small = UNet(6, 2, (64, 128, 256, 512, 512, 512), [(8 * a, 8 * b) for a, b in up])
    assert [sum(p.numel() for p in net.parameters()) for net in (large, small)] == [69_048_579, 28_374_146]


def test_the_normalisation_can_be_chosen_and_stages_must_fit():
    net = UNet(1, 1, (4, 8), ((4, 4),), norm=nn.InstanceNorm2d)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert sum(isinstance(m, nn.InstanceNorm2d) for m in net.modules()) == 7
    with pytest.raises(ValueError, match="need 2 decoder stages, not 1"):
        UNet(1, 1, (4, 8, 8), ((4, 4),))


def test_the_start_is_small():
    torch.manual_seed(0)
    net = initialised_small(nn.Sequential(nn.Conv2d(64, 64, 3), nn.BatchNorm2d(4000), nn.ConvTranspose2d(64, 64, 3)))
    for number, mean in enumerate((0, 1, 0)):
        weight = net[number].weight.detach()
        assert float(weight.mean()) == pytest.approx(mean, abs=2e-3)
        assert float(weight.std()) == pytest.approx(0.02, rel=0.05)
