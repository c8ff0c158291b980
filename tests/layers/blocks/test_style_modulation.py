import math

import pytest
import torch
import torch.nn.functional as F

from iadbe.layers.blocks.style_modulation import (
    BiasedLeakyReLU,
    EqualizedConvolution,
    ModulatedConvolution,
    StyledBlock,
    activated,
    blurred,
)


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_convolution(x, weight):
    """Sum over a kernel's places, one output value at a time, with zeros outside."""
    count, _, height, width = x.shape
    side = weight.shape[-1]
    half = side // 2
    out = torch.zeros(count, len(weight), height, width)
    for b in range(count):
        for k in range(len(weight)):
            for y in range(height):
                for c in range(width):
                    for i in range(side):
                        for j in range(side):
                            if 0 <= y + i - half < height and 0 <= c + j - half < width:
                                out[b, k, y, c] += weight[k, :, i, j] @ x[b, :, y + i - half, c + j - half]
    return out


def slow_doubling(x, weight):
    """Scatter every value with the kernel onto a grid of twice the size, then blur by the 4 x 4 kernel of the paper."""
    count, _, height, width = x.shape
    side = weight.shape[-1]
    scattered = torch.zeros(count, len(weight), 2 * height - 2 + side, 2 * width - 2 + side)
    for y in range(height):
        for c in range(width):
            for i in range(side):
                for j in range(side):
                    scattered[:, :, 2 * y + i, 2 * c + j] += x[:, :, y, c] @ weight[:, :, i, j].T
    taps = torch.tensor([1.0, 3, 3, 1])
    kernel = 4 * torch.outer(taps, taps) / taps.sum() ** 2
    margin = (5 - side) // 2
    padded = F.pad(scattered, (margin, margin, margin, margin))
    out = torch.zeros(count, len(weight), 2 * height, 2 * width)
    for y in range(2 * height):
        for c in range(2 * width):
            out[:, :, y, c] = (padded[:, :, y : y + 4, c : c + 4] * kernel).sum((2, 3))
    return out


def perturbed(module):
    """Give every parameter other values than those it starts with, so that biases of 0 or 1 matter."""
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            parameter.add_(0.3 * drawn(*parameter.shape, seed=number))
    return module


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("rate", [1.0, 0.01])
def test_an_equalized_convolution_scales_its_weights(kernel, rate):
    layer = perturbed(EqualizedConvolution(3, 2, kernel, bias=0.5, rate=rate))
    x = drawn(2, 3, 4, 5)
    expected = slow_convolution(x, layer.weight.detach() * rate / math.sqrt(3 * kernel**2))
    torch.testing.assert_close(layer(x), expected + layer.bias[:, None, None], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_doubled_grid_is_that_of_the_slow_version(kernel):
    layer = perturbed(EqualizedConvolution(3, 2, kernel, double=True, bias=0.0))
    x = drawn(2, 3, 3, 4)
    expected = slow_doubling(x, layer.weight.detach() / math.sqrt(3 * kernel**2)) + layer.bias[:, None, None]
    assert layer(x).shape == (2, 2, 6, 8)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_the_learning_rates_factor_leaves_the_start_and_slows_the_change():
    """The same change of the weights moves the output by the factor."""
    torch.manual_seed(0)
    plain = EqualizedConvolution(4, 4, 3)
    slow = EqualizedConvolution(4, 4, 3, rate=0.01)
    with torch.no_grad():
        slow.weight.copy_(plain.weight / 0.01)
    x = drawn(1, 4, 5, 5)
    start = plain(x)
    torch.testing.assert_close(slow(x), start, rtol=1e-4, atol=1e-5)
    change = drawn(*plain.weight.shape, seed=1)
    with torch.no_grad():
        plain.weight.add_(change)
        slow.weight.add_(change)
    torch.testing.assert_close((slow(x) - start), 0.01 * (plain(x) - start), rtol=1e-2, atol=1e-4)


def test_the_variance_of_a_layer_is_kept_whatever_its_width():
    torch.manual_seed(0)
    for channels in (8, 256):
        found = activated(channels, 64)(drawn(4, channels, 16, 16))
        assert 0.7 < float(found.detach().square().mean()) < 1.3


def test_the_blur_keeps_the_mean_of_a_grid_with_every_second_value():
    spread = torch.zeros(1, 1, 20, 20)
    spread[:, :, ::2, ::2] = 3.0
    torch.testing.assert_close(blurred(spread, 2)[:, :, 4:-4, 4:-4], torch.full((1, 1, 13, 13), 3.0))


def test_the_activation():
    layer = BiasedLeakyReLU(2)
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -1.0]))
    x = torch.tensor([0.5, 0.5]).view(1, 2, 1, 1)
    torch.testing.assert_close(layer(x).flatten(), math.sqrt(2) * torch.tensor([1.5, -0.5 * 0.2]))


def slow_modulation(layer, x, style):
    """StyleMapGAN's formula: normalise one map, scale and shift every position by its style."""
    normed = torch.stack([(m - m.mean()) / (m.var(correction=0) + 1e-5).sqrt() for m in x])
    if layer.gamma is None:
        return slow_doubling(normed, layer.convolution.weight.detach() * layer.convolution.scale)
    gamma, beta = (
        slow_convolution(style, part.weight.detach() * part.scale) + part.bias[:, None, None]
        for part in (layer.gamma, layer.beta)
    )
    return slow_convolution(normed * gamma + beta, layer.convolution.weight.detach() * layer.convolution.scale)


@pytest.mark.parametrize("double", [False, True])
def test_a_modulated_convolution_is_that_of_the_slow_version(double):
    layer = perturbed(ModulatedConvolution(3, 2, 4, double))
    x, style = drawn(2, 3, 4, 3), drawn(2, 4, 4, 3, seed=1)
    torch.testing.assert_close(layer(x, style), slow_modulation(layer, x, style), rtol=1e-4, atol=1e-5)


def test_a_style_changes_its_own_surroundings_only():
    """γ, β and the convolution reach one position each; without them the layer norm has no style in it."""
    layer = perturbed(ModulatedConvolution(3, 2, 4))
    x, style = drawn(1, 3, 9, 9), drawn(1, 4, 9, 9, seed=1)
    other = style.clone()
    other[:, :, 4, 4] += 1
    changed = ((layer(x, style) - layer(x, other)).abs() > 1e-6).any(1)[0]
    assert changed[2:7, 2:7].all()
    assert changed.sum() == 25


@pytest.mark.parametrize("double", [False, True])
def test_a_block_adds_its_shortcut(double):
    block = perturbed(StyledBlock(3, 2, 4, double))
    side = 6 if double else 3
    x, style = drawn(2, 3, 3, 3), drawn(2, 4, side, side, seed=1)
    inner = slow_modulation(block.first, x, style)
    for part, bias in ((block.second, block.first_activation.bias), (None, block.second_activation.bias)):
        inner = math.sqrt(2) * F.leaky_relu(inner + bias[:, None, None], 0.2)
        inner = inner if part is None else slow_modulation(part, inner, style)
    resized = slow_doubling if double else slow_convolution
    expected = (inner + resized(x, block.shortcut.weight.detach() * block.shortcut.scale)) / math.sqrt(2)
    torch.testing.assert_close(block(x, style), expected, rtol=1e-3, atol=1e-4)
