"""Encoders and decoders of two convolutions per scale, with or without skip connections (U-Net).

Paper: Ronneberger et al., "U-Net", MICCAI 2015, 1505.04597, as in DRAEM (Zavrtanik et al., ICCV 2021, 2108.07610) and
    DSR (Zavrtanik et al., ECCV 2022, 2208.01521): the grid is doubled by bilinear interpolation, with a convolution
    after it, and convolutions keep the grid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]


class UNet(nn.Module):
    """Maps (B, inputs, H, W) to (B, outputs, H, W)."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        down: Sequence[int],
        up: Sequence[tuple[int, int]],
        skips: bool = True,
        norm: Norm = nn.BatchNorm2d,
    ) -> None:
        """Make the network with random weights.

        Args:
            inputs: channels that come in
            outputs: channels that go out
            down: channels of the encoder at each scale, finest first; the grid is halved between scales
            up: channels of the decoder at each scale from the second coarsest to the finest: those after the doubling,
                which its first convolution keeps, and those that the second one makes
            skips: whether a decoder scale also sees the encoder's output of the same scale
            norm: makes the normalisation of so many channels
        """
        super().__init__()
        if len(up) != len(down) - 1:
            raise ValueError(f"{len(down)} scales need {len(down) - 1} decoder stages, not {len(up)}.")
        self.down = nn.ModuleList(stage(a, b, b, norm) for a, b in zip([inputs, *down], down, strict=False))
        self.doubling, self.up = nn.ModuleList(), nn.ModuleList()
        before = down[-1]
        for (doubled, after), beside in zip(up, down[-2::-1], strict=True):
            self.doubling.append(convolution(before, doubled, norm))
            self.up.append(stage(doubled + beside if skips else doubled, doubled, after, norm))
            before = after
        self.last = nn.Conv2d(before, outputs, 3, padding=1)
        self.skips = skips

    def forward(self, x: Tensor) -> Tensor:
        seen = []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else halved_grid(x))
            seen.append(x if self.skips else x[:, :0])  # without skips only the size is needed
        for doubling, block, same in zip(self.doubling, self.up, seen[-2::-1], strict=True):
            x = doubling(F.interpolate(x, same.shape[-2:], mode="bilinear", align_corners=True))
            x = block(torch.cat([x, same], 1) if self.skips else x)
        return self.last(x)


def stage(before: int, middle: int, after: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Return two 3 x 3 convolutions, each with its normalisation and a ReLU."""
    return nn.Sequential(*convolution(before, middle, norm), *convolution(middle, after, norm))


def convolution(before: int, after: int, norm: Norm = nn.BatchNorm2d) -> nn.Sequential:
    """Return a 3 x 3 convolution that keeps the grid, its normalisation and a ReLU."""
    return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), norm(after), nn.ReLU(inplace=True))


def initialised_small(network: nn.Module) -> nn.Module:
    """Draw convolutions from N(0, 0.02²) and the scales of batch norms from N(1, 0.02²), as DRAEM's authors do."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
            nn.init.zeros_(module.bias)
    return network


def halved_grid(x: Tensor) -> Tensor:
    """Return the maximum of each 2 x 2 values of (B, C, h, w), of fewer at the end of an odd side."""
    window = [min(2, side) for side in x.shape[2:]]  # OpenVINO takes none that is larger than the grid
    return F.max_pool2d(x, window, 2, ceil_mode=True)
