"""Rescaling of features to the magnitude for which a paper chose its noise level and learning rate.

Layers 2 and 3 of a ResNet have a root mean square of about 0.2 (less after pooling), those of networks with linear
bottlenecks of about 6. Noise that suits one is far too weak or too strong for the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Rescale(nn.Module):
    """Multiplies features by one factor, fitted so that their root mean square over training images is ``target``."""

    factor: Tensor

    def __init__(self, target: float = 0.1) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("factor", torch.ones(()))

    def fit(self, parts: Iterable[Tensor]) -> None:
        """Fit the factor to features of any shape, given in parts; if all are 0, it is 1."""
        total, count = 0.0, 0
        for part in parts:
            squares = part.square()
            squares = squares.cpu() if squares.device.type == "mps" else squares  # which has no float64
            total += float(squares.sum(dtype=torch.float64))
            count += part.numel()
        factor = self.target * (count / total) ** 0.5 if total > 0 else 1.0
        self.factor = torch.full_like(self.factor, factor)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.factor
