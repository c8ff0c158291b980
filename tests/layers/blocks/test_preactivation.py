import pytest
import torch
import torch.nn.functional as F
from torch import nn

from iadbe.layers.blocks.preactivation import PreactivationBlock, ResampledConvolution, plain_resampled


@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("resize", ["halve", "keep", "double"])
def test_a_resampled_convolution_equals_the_plain_algorithm(kernel, resize):
    generator = torch.Generator().manual_seed(0)
    layer, x = ResampledConvolution(3, 5, kernel, resize), torch.randn(2, 3, 8, 6, generator=generator)
    weight, bias = layer.convolution.weight, layer.convolution.bias
    with torch.no_grad():
        bias.normal_(generator=generator)
    found, expected = layer(x), plain_resampled(x, weight, bias, resize)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    for a, b in zip(*(torch.autograd.grad(o.square().sum(), weight) for o in (found, expected)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_weights_have_the_deviation_of_the_papers_code():
    weight = ResampledConvolution(64, 32, 3).convolution.weight
    assert weight.std().item() == pytest.approx((4 / (9 * (64 + 32))) ** 0.5, rel=0.03)
    shortcut = PreactivationBlock(64, 32, "halve").shortcut.convolution.weight
    assert shortcut.std().item() == pytest.approx((2 / (64 + 32)) ** 0.5, rel=0.05)


@pytest.mark.parametrize(("resize", "side"), [("halve", 4), ("keep", 8), ("double", 16)])
@pytest.mark.parametrize("norm", ["batch", "layer"])
def test_a_block_is_shortcut_plus_two_normalised_convolutions(resize, side, norm):
    block, x = PreactivationBlock(4, 6, resize, norm), torch.randn(3, 4, 8, 8)
    before, after = ("double" if resize == "double" else "keep"), ("halve" if resize == "halve" else "keep")
    first, last, short = block.branch[2].convolution, block.branch[5].convolution, block.shortcut.convolution

    def normed(values):
        over = (0, 2, 3) if norm == "batch" else (1, 2, 3)
        mean, variance = values.mean(over, keepdim=True), values.var(over, correction=0, keepdim=True)
        return (values - mean) / (variance + 1e-5).sqrt()

    h = plain_resampled(F.relu(normed(x)), first.weight, None, before)
    h = plain_resampled(F.relu(normed(h)), last.weight, last.bias, after)
    expected = plain_resampled(x, short.weight, short.bias, resize) + h
    assert first.bias is None
    assert expected.shape == (3, 6, side, side)
    torch.testing.assert_close(block(x), expected, rtol=1e-3, atol=1e-4)


def test_the_shortcut_is_the_identity_where_it_can_be():
    assert isinstance(PreactivationBlock(4, 4).shortcut, nn.Identity)
    assert not isinstance(PreactivationBlock(4, 4, "double").shortcut, nn.Identity)


def test_layer_norm_keeps_images_apart_and_has_second_derivatives():
    block = PreactivationBlock(2, 2, "halve", "layer")
    x = torch.randn(3, 2, 4, 4, requires_grad=True)
    torch.testing.assert_close(block(x)[1:2], block(x[1:2]))
    (slope,) = torch.autograd.grad(block(x).sum(), x, create_graph=True)
    slope.square().sum().backward()
    assert block.branch[2].convolution.weight.grad.abs().sum() > 0
