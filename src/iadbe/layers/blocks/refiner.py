"""The refinement network of an anomaly map: a U-Net over image and map.

Paper: Bae et al., "PNI", ICCV 2023, 2211.12634: the network adds a correction to the map, learnt from synthetic
    defects; the loss is half the squared error and a quarter each of that of both gradients.
Differs:
    * The U-Net is trained from scratch. The authors' encoder is a DenseNet-161 with ImageNet weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.layers.blocks.unet import halved_grid


class Refiner(nn.Module):
    """A U-Net that adds a correction to the map. Before training the correction is 0."""

    def __init__(self, width: int = 16, levels: int = 4) -> None:
        """Make the network with random weights.

        Args:
            width: channels at full size; twice as many at every halving
            levels: how often the size is halved
        """
        super().__init__()
        sizes = [width * 2**k for k in range(levels + 1)]
        self.down = nn.ModuleList(_block(a, b) for a, b in zip([4, *sizes], sizes, strict=False))
        self.up = nn.ModuleList(_block(a + b, b) for a, b in zip(sizes[:0:-1], sizes[-2::-1], strict=True))
        self.last = nn.Conv2d(width, 1, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, image: Tensor, map_: Tensor) -> Tensor:
        """Return the refined maps (B, H, W) of images (B, 3, H, W) and maps (B, H, W)."""
        x, seen = torch.cat([image, map_[:, None]], 1), []
        for number, block in enumerate(self.down):
            x = block(x if number == 0 else halved_grid(x))
            seen.append(x)
        for block, same in zip(self.up, seen[-2::-1], strict=True):
            x = F.interpolate(x, size=same.shape[-2:], mode="bilinear", align_corners=False)
            x = block(torch.cat([x, same], 1))
        return map_ + self.last(x)[:, 0]


def refinement_loss(found: Tensor, truth: Tensor) -> Tensor:
    """Return half the squared error () of maps (B, H, W), and a quarter each of that of both gradients."""
    error = found - truth
    across, down = error.diff(dim=2).square().mean(), error.diff(dim=1).square().mean()
    return error.square().mean() / 2 + across / 4 + down / 4


def _block(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
        nn.Conv2d(after, after, 3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(),
    )
