"""Subnetworks of couplings: what computes scale and shift, and need not be invertible."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionalSubnet(nn.Module):
    """Two convolutions with a ReLU between them.

    The condition is convolved once for all images and added to the hidden values. This equals one convolution over
    both concatenated. With ``norm``, a layer norm over the channels of each position precedes the ReLU.
    """

    def __init__(
        self, inside: int, outside: int, hidden: int, kernel: int, condition: int = 0, norm: bool = False
    ) -> None:
        super().__init__()
        self.first = nn.Conv2d(inside, hidden, kernel, padding=kernel // 2)
        self.extra = nn.Conv2d(condition, hidden, kernel, padding=kernel // 2, bias=False) if condition else None
        self.norm = nn.LayerNorm(hidden) if norm else None
        self.last = nn.Conv2d(hidden, outside, kernel, padding=kernel // 2)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.extra is not None:
            hidden = hidden + self.extra(condition)
        if self.norm is not None:
            hidden = self.norm(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.last(F.relu(hidden))


class LinearSubnet(nn.Module):
    """Two linear layers over rows (N, C) with a ReLU between them; a condition (N, P) is concatenated."""

    def __init__(self, inside: int, outside: int, hidden: int, condition: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(inside + condition, hidden)
        self.last = nn.Linear(hidden, outside)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = x if condition is None else torch.cat([x, condition], 1)
        return self.last(F.relu(self.first(x)))
