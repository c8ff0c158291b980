"""Invertible layers that rearrange values: fixed permutations and rotations of channels, and upsampling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.flows.invertible import InvertibleLayer


class Permutation(InvertibleLayer):
    """Channels in a random order, fixed when it is made, so that the next coupling splits them differently."""

    order: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("order", torch.randperm(channels))

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x.index_select(1, self.order))

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z.index_select(1, self.order.argsort())


class Rotation(InvertibleLayer):
    """Rows turned by a random orthogonal matrix, fixed when it is made: every coupling sees mixtures of all values."""

    matrix: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        q, r = torch.linalg.qr(torch.randn(channels, channels))
        self.register_buffer("matrix", q * r.diagonal().sign())  # the signs make all rotations equally likely

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return super().forward(x @ self.matrix)

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return z @ self.matrix.T


class Upsampling(InvertibleLayer):
    """``factor``² channels become one of ``factor`` times the height and width; log_det is on the grid it took."""

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return F.pixel_shuffle(x, self.factor), super().forward(x)[1]

    def inverse(self, z: Tensor, condition: Tensor | None = None) -> Tensor:
        return F.pixel_unshuffle(z, self.factor)
