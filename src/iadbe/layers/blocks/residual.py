"""Residual blocks that halve, keep or double the grid, for encoders and mirrored decoders.

Paper: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, 1512.03385 (basic and bottleneck blocks);
    Deng and Li, CVPR 2022, 2201.10703 (decoder: transposed convolutions double the grid).
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from iadbe.layers.blocks.strided_pointwise import HalvingPointwise

Resize = Literal["halve", "keep", "double"]


class ResidualBlock(nn.Module):
    """x + f(x), where f is two 3x3 convolutions (basic block), or 1x1, 3x3, 1x1 convolutions (bottleneck)."""

    def __init__(
        self, before: int, after: int, resize: Resize = "keep", inner: int = 0, rectified: bool = True
    ) -> None:
        """Choose the block.

        Args:
            before: channels that come in
            after: channels that go out
            resize: what happens to the grid
            inner: channels of a bottleneck's 3x3 convolution; 0: a basic block
            rectified: whether a ReLU follows the sum
        """
        super().__init__()
        if inner:
            ends = [*_normed(nn.Conv2d(inner, after, 1, bias=False))]
            parts = [*_normed(nn.Conv2d(before, inner, 1, bias=False)), nn.ReLU(inplace=True)]
            parts += [*_normed(_convolution(inner, inner, resize, 3)), nn.ReLU(inplace=True)]
        else:
            ends = [*_normed(_convolution(after, after, "keep", 3))]
            parts = [*_normed(_convolution(before, after, resize, 3)), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*parts, *ends)
        same = before == after and resize == "keep"
        self.shortcut = nn.Identity() if same else nn.Sequential(*_normed(_convolution(before, after, resize, 1)))
        self.end = nn.ReLU(inplace=True) if rectified else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, before, h, w) to (B, after, h', w')."""
        return self.end(self.branch(x) + self.shortcut(x))


def residual_stage(
    before: int, after: int, blocks: int, resize: Resize = "keep", inner: int = 0, rectified: bool = True
) -> nn.Sequential:
    """Return ``blocks`` blocks. The first one resizes; ``rectified`` concerns the last one."""
    made = [
        ResidualBlock(
            before if i == 0 else after, after, resize if i == 0 else "keep", inner, rectified or i < blocks - 1
        )
        for i in range(blocks)
    ]
    return nn.Sequential(*made)


def _convolution(before: int, after: int, resize: Resize, kernel: int) -> nn.Module:
    if resize == "double":
        return nn.ConvTranspose2d(before, after, 2, stride=2, bias=False)
    if resize == "halve" and kernel == 1:
        return he_initialised(HalvingPointwise(before, after))
    return he_initialised(nn.Conv2d(before, after, kernel, 1 + (resize == "halve"), kernel // 2, bias=False))


def _normed(convolution: Any) -> tuple[nn.Module, nn.BatchNorm2d]:
    return he_initialised(convolution), nn.BatchNorm2d(convolution.out_channels)


def he_initialised(convolution: nn.Module) -> nn.Module:
    """Initialise a convolution as He et al. do; a transposed one keeps torch's weights, as in the authors' code."""
    if isinstance(convolution, nn.Conv2d):
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
    return convolution
