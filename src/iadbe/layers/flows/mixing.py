"""Invertible layers that rearrange values: fixed permutations and rotations of channels, and upsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.flows.invertible import InvertibleLayer


class Permutation(InvertibleLayer):
    """A random permutation of the channels, fixed at construction. The next coupling then splits them differently."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x.index_select(1, self.order))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z.index_select(1, self.order.argsort())


class Rotation(InvertibleLayer):
    """A random rotation of rows (N, C), fixed at construction. The next coupling then sees mixtures of all channels.

    It is computed in full precision in mixed-precision training too: rounded to 16 bits it would be no rotation.
    """

    matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(channels, channels))
        self.register_buffer("matrix", q * r.diagonal().sign())  # the signs make the distribution uniform

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x @ self.matrix)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z @ self.matrix.T


class Upsampling(InvertibleLayer):
    """Pixel shuffle: from (B, C · factor², h, w) to (B, C, h · factor, w · factor); log_det is on the input's grid."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(x, self.factor), super().forward(x)[1]

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.pixel_unshuffle(z, self.factor)
