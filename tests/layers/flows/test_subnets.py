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
