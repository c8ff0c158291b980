import torch
from torch import nn

from iadbe.layers.flows.subnets import ConvolutionalSubnet


def test_a_condition_enters_through_the_first_convolution():
    """The condition's part is computed once; the sum is what a convolution over both, one beside the other, gives."""
    net, x = ConvolutionalSubnet(5, 6, 7, 3, 4), torch.randn(2, 5, 3, 4)
    condition = torch.randn(1, 4, 3, 4)
    both = torch.cat([x, condition.expand(2, -1, -1, -1)], 1)
    weight = torch.cat([net.first.weight, net.extra.weight], 1)
    hidden = nn.functional.conv2d(both, weight, net.first.bias, padding=1)
    torch.testing.assert_close(net(x, condition), net.last(hidden.relu()))


def test_borders_are_repeated_and_a_gain_scales_the_output():
    net, x = ConvolutionalSubnet(3, 4, 5, 3, 2, replicate=True, gain=True), torch.randn(2, 3, 4, 5)
    condition = torch.randn(1, 2, 4, 5)
    assert (net(x, condition) == 0).all()
    nn.init.constant_(net.gain, 3.0)

    def convolved(layer, values):
        padded = nn.functional.pad(values, (1, 1, 1, 1), mode="replicate")
        return nn.functional.conv2d(padded, layer.weight, layer.bias)

    hidden = (convolved(net.first, x) + convolved(net.extra, condition)).relu()
    torch.testing.assert_close(net(x, condition), 3 * convolved(net.last, hidden))
