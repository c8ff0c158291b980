"""Blocks of style-based generators whose styles vary over positions: modulated convolutions and what surrounds them.

Paper: Kim et al., "Exploiting Spatial Dimensions of Latent in GAN for Real-time Image Editing" (StyleMapGAN), CVPR
    2021, 2104.14754, section 3.2 (a map of styles scales and shifts normalised features, position by position); Karras
    et al., "Progressive Growing of GANs", ICLR 2018, 1710.10196 (equalised learning rate); Karras et al., "Analyzing
    and Improving the Image Quality of StyleGAN", CVPR 2020, 1912.04958 (blurred upsampling, residual blocks).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQRT2 = math.sqrt(2)
SLOPE = 0.2  # of the leaky ReLU, on negative values
TAPS = (1.0, 3.0, 3.0, 1.0)  # the blur along one axis, before it is normalised


class EqualizedConvolution(nn.Module):
    """A convolution with an equalised learning rate; it keeps or doubles the grid.

    Weights are drawn from a standard Gaussian, and every forward pass scales them to He's variance. Then Adam's steps,
    whose size does not depend on a weight's, are as large for wide layers as for narrow ones.
    """

    def __init__(
        self, before: int, after: int, kernel: int, double: bool = False, bias: float | None = None, rate: float = 1.0
    ) -> None:
        """Make an untrained layer.

        Args:
            before: channels that come in
            after: channels that go out
            kernel: side of the kernel, 1 or 3
            double: whether a transposed convolution and a blur double the grid
            bias: initial value of the bias; None: no bias
            rate: factor of the learning rate; initial weights are divided by it and the scale is multiplied
        """
        super().__init__()
        self.weight = nn.Parameter(torch.randn(after, before, kernel, kernel) / rate)
        self.bias = None if bias is None else nn.Parameter(torch.full((after,), bias))
        self.scale = rate / math.sqrt(before * kernel * kernel)
        self.is_doubled = double

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, h, w) to (B, after, h, w), or to twice that grid."""
        weight = self.weight * self.scale
        if not self.is_doubled:
            return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)
        wide = blurred(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (5 - weight.shape[-1]) // 2)
        return wide if self.bias is None else wide + self.bias[:, None, None]


def blurred(x: Tensor, padding: int) -> Tensor:
    """Blur (B, C, h, w), with zeros outside, by the outer product of ``TAPS``: (B, C, h + 2 padding - 3, …).

    The taps sum to 2 along each axis, for in a grid that was doubled every second value is 0.
    """
    taps = torch.tensor(TAPS, dtype=x.dtype, device=x.device)
    down = (2 * taps / taps.sum()).view(1, 1, -1, 1).expand(x.shape[1], 1, -1, 1)
    x = F.conv2d(x, down, padding=(padding, 0), groups=x.shape[1])
    return F.conv2d(x, down.mT, padding=(0, padding), groups=x.shape[1])


class BiasedLeakyReLU(nn.Module):
    """√2 times the leaky ReLU of x plus a bias per channel; the factor keeps the variance."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return SQRT2 * F.leaky_relu(x + self.bias[:, None, None], SLOPE)


def activated(before: int, after: int, double: bool = False, rate: float = 1.0) -> nn.Sequential:
    """Return an equalised 3 x 3 convolution with its activation."""
    return nn.Sequential(EqualizedConvolution(before, after, 3, double, rate=rate), BiasedLeakyReLU(after))


class ModulatedConvolution(nn.Module):
    """Layer norm over the whole map, x · γ(style) + β(style), and an equalised 3 x 3 convolution.

    γ and β are convolutions of the map of styles, so every position has its own. A layer that doubles the grid is not
    modulated, as in InvAD's code.
    """

    def __init__(self, before: int, after: int, styles: int, double: bool = False) -> None:
        """Make an untrained layer.

        Args:
            before: channels that come in
            after: channels that go out
            styles: channels of the map of styles
            double: whether the grid is doubled, without modulation
        """
        super().__init__()
        self.convolution = EqualizedConvolution(before, after, 3, double)
        self.gamma = None if double else EqualizedConvolution(styles, before, 3, bias=1.0)
        self.beta = None if double else EqualizedConvolution(styles, before, 3, bias=0.0)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map (B, before, h, w) and styles (B, styles, h, w) to (B, after, h, w); doubled, styles do not matter."""
        x = F.layer_norm(x, x.shape[1:])
        if self.gamma is not None and self.beta is not None:
            x = x * self.gamma(style) + self.beta(style)
        out: Tensor = self.convolution(x)
        return out


class StyledBlock(nn.Module):
    """(f(x) + s(x)) / √2: two modulated convolutions with their activations, and a 1 x 1 convolution as shortcut."""

    def __init__(self, before: int, after: int, styles: int, double: bool = False) -> None:
        """Choose the block; its arguments are those of :class:`ModulatedConvolution`."""
        super().__init__()
        self.first, self.second = (
            ModulatedConvolution(before, after, styles, double),
            ModulatedConvolution(after, after, styles),
        )
        self.first_activation, self.second_activation = BiasedLeakyReLU(after), BiasedLeakyReLU(after)
        self.shortcut = EqualizedConvolution(before, after, 1, double)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        """Map (B, before, h, w) and styles on the grid that goes out to (B, after, h', w')."""
        inner = self.first_activation(self.first(x, style))
        inner = self.second_activation(self.second(inner, style))
        out: Tensor = (inner + self.shortcut(x)) / SQRT2
        return out
