"""Subnetworks of couplings: what computes scale and shift, and need not be invertible."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConvolutionalSubnet(nn.Module):
    """Two convolutions with a ReLU between them.

    The condition is convolved once for all images and added to the hidden values. This equals one convolution over
    both concatenated. With ``norm``, a layer norm over the channels of each position precedes the ReLU. With
    ``replicate``, borders are padded by repetition; with ``gain``, the output has a trained factor that starts at 0.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        hidden: int,
        kernel: int,
        condition: int = 0,
        norm: bool = False,
        *,
        replicate: bool = False,
        gain: bool = False,
    ) -> None:
        super().__init__()
        border: dict[str, Any] = {"padding": kernel // 2, "padding_mode": "replicate" if replicate else "zeros"}
        self.first = nn.Conv2d(inside, hidden, kernel, **border)
        self.extra = nn.Conv2d(condition, hidden, kernel, bias=False, **border) if condition else None
        self.norm = nn.LayerNorm(hidden) if norm else None
        self.last = nn.Conv2d(hidden, outside, kernel, **border)
        self.gain = nn.Parameter(torch.zeros(1)) if gain else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        hidden = self.first(x)
        if self.extra is not None:
            hidden = hidden + self.extra(condition)
        if self.norm is not None:
            hidden = self.norm(hidden.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        outside = self.last(F.relu(hidden))
        return outside if self.gain is None else self.gain * outside


class LinearSubnet(nn.Module):
    """Two linear layers over rows (N, C) with a ReLU between them; a condition (N, P) is concatenated."""

    def __init__(self, inside: int, outside: int, hidden: int, condition: int = 0) -> None:
        super().__init__()
        self.first = nn.Linear(inside + condition, hidden)
        self.last = nn.Linear(hidden, outside)

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        x = x if condition is None else torch.cat([x, condition], 1)
        return self.last(F.relu(self.first(x)))
