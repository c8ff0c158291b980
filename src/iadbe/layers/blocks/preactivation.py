"""Residual blocks of generative networks: norm, ReLU and convolution, twice, that halve, keep or double the grid.

Paper: Gulrajani et al., "Improved Training of Wasserstein GANs", NIPS 2017, 1704.00028, its residual networks; Schlegl
    et al., "f-AnoGAN", Medical Image Analysis 2019, and Chen et al., "Deep One-Class Classification via Interpolated
    Gaussian Descriptor", AAAI 2022, 2101.10043, build their networks of them.
Differs:
    * A convolution after nearest upsampling, or before a mean over 2 x 2 pixels, is one convolution with a kernel
      larger by one, of stride 2. The results are equal; ``plain_resampled`` is the plain algorithm.
"""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Resize = Literal["halve", "keep", "double"]
SQRT2 = math.sqrt(2)
Norm = Literal["batch", "layer"]


class PreactivationBlock(nn.Module):
    """x + f(x), where f is norm, ReLU, convolution, norm, ReLU, convolution."""

    def __init__(self, before: int, after: int, resize: Resize = "keep", norm: Norm = "batch") -> None:
        """Choose the block.

        Args:
            before: channels that come in
            after: channels that go out
            resize: what happens to the grid: in the last convolution where it is halved, in the first where doubled
            norm: batch, or layer (over channels and pixels of one image, which a gradient penalty needs)
        """
        super().__init__()
        inner = after if resize == "double" else before
        first: Resize = "double" if resize == "double" else "keep"
        last: Resize = "halve" if resize == "halve" else "keep"
        self.branch = nn.Sequential(
            *(_norm(before, norm), nn.ReLU(), ResampledConvolution(before, inner, 3, first, bias=False)),
            *(_norm(inner, norm), nn.ReLU(), ResampledConvolution(inner, after, 3, last)),
        )
        same = before == after and resize == "keep"
        self.shortcut = nn.Identity() if same else ResampledConvolution(before, after, 1, resize, gain=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, h, w) to (B, after, h', w')."""
        return self.shortcut(x) + self.branch(x)


class ResampledConvolution(nn.Module):
    """A convolution after nearest upsampling (double), before a mean over 2 x 2 pixels (halve), or alone (keep)."""

    def __init__(
        self,
        before: int,
        after: int,
        kernel: int,
        resize: Resize = "keep",
        bias: bool = True,
        gain: float = SQRT2,
    ) -> None:
        """Make an untrained layer; weights are uniform (Glorot), bias is 0.

        Args:
            before: channels that come in
            after: channels that go out
            kernel: side of the kernel, odd
            resize: what happens to the grid
            bias: whether there is a bias
            gain: of the initial weights; √2 before or after a ReLU
        """
        super().__init__()
        self.convolution = nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=bias)
        self.resize = resize
        nn.init.xavier_uniform_(self.convolution.weight, gain)
        if self.convolution.bias is not None:
            nn.init.zeros_(self.convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, h, w) to (B, after, h', w')."""
        weight, bias = self.convolution.weight, self.convolution.bias
        padding = weight.shape[-1] // 2
        if self.resize == "keep":
            return F.conv2d(x, weight, bias, padding=padding)
        if padding == 0:  # positions are independent, so resampling commutes with the convolution
            if self.resize == "halve":
                return F.conv2d(F.avg_pool2d(x, 2), weight, bias)
            return F.interpolate(F.conv2d(x, weight, bias), scale_factor=2.0, mode="nearest")
        if self.resize == "halve":
            return F.conv2d(x, _spread(weight) / 4, bias, 2, padding)
        return F.conv_transpose2d(x, _spread(weight.flip((2, 3))).transpose(0, 1), bias, 2, padding)


def plain_resampled(x: Tensor, weight: Tensor, bias: Tensor | None, resize: Resize) -> Tensor:
    """Return what :class:`ResampledConvolution` computes, in two steps."""
    if resize == "double":
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
    x = F.conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    return F.avg_pool2d(x, 2) if resize == "halve" else x


def _spread(weight: Tensor) -> Tensor:
    """Return the convolution of kernels (…, k, k) with 2 x 2 ones: (…, k + 1, k + 1)."""
    wide = F.pad(weight, (0, 1)) + F.pad(weight, (1, 0))
    return F.pad(wide, (0, 0, 0, 1)) + F.pad(wide, (0, 0, 1, 0))


def _norm(channels: int, norm: Norm) -> nn.Module:
    return nn.BatchNorm2d(channels) if norm == "batch" else nn.GroupNorm(1, channels)
