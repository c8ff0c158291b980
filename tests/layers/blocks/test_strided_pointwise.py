import pytest
import torch
import torch.nn.functional as F

from iadbe.layers.blocks.strided_pointwise import DoublingPointwise, HalvingPointwise


def image(channels, height=5, width=4):
    made = torch.rand(2, channels, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return made.contiguous(memory_format=torch.channels_last).requires_grad_()


def check(layer, x, plain):
    """Values and gradients are those of torch's own in contiguous order, where it is right."""
    layer = layer.double()
    other = x.detach().contiguous().requires_grad_()
    weight = layer.weight.detach().clone().requires_grad_()
    found, expected = layer(x), plain(other, weight)
    torch.testing.assert_close(found, expected)
    direction = torch.rand(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    (found * direction).sum().backward()
    (expected * direction).sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(layer.weight.grad, weight.grad)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (3, 16), (7, 2), (16, 4), (16, 16)])
@pytest.mark.parametrize(("height", "width"), [(5, 4), (1, 1)])
def test_halving_is_the_convolution_of_stride_two(before, after, height, width):
    layer = HalvingPointwise(before, after)
    check(layer, image(before, height, width), lambda x, weight: F.conv2d(x, weight, stride=2))


@pytest.mark.parametrize(("before", "after"), [(1, 1), (6, 4), (16, 2), (16, 16)])
def test_doubling_is_the_transposed_convolution_of_stride_two(before, after):
    layer = DoublingPointwise(before, after)
    check(layer, image(before), lambda x, w: F.conv_transpose2d(x, w, stride=2, output_padding=1))


def test_a_narrow_one_never_asks_torch_for_a_stride(monkeypatch):
    """The gradient of torch's strided one writes beyond its memory."""
    strides = []
    original = F.conv2d

    def spied(x, weight, bias=None, stride=1, *others):
        strides.append(stride)
        return original(x, weight, bias, stride, *others)

    monkeypatch.setattr(F, "conv2d", spied)
    narrow, wide = HalvingPointwise(16, 7).double(), HalvingPointwise(16, 8).double()
    narrow(image(16))
    assert strides == [1]
    wide(image(16))
    assert strides == [1, (2, 2)]
