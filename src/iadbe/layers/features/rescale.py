"""Brings a backbone's features to the size for which a paper chose its noise and its learning rate.

A ResNet's layers 2 and 3 have a root mean square of about 0.2 (less where several values are averaged into one), those
of networks with linear bottlenecks of about 6: noise that hides a defect in the one cannot be seen in the other.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class Rescale(nn.Module):
    """Multiplies features by one number, learnt so that their root mean square over training images is ``target``."""

    factor: Tensor

    def __init__(self, target: float = 0.1) -> None:
        super().__init__()
        self.target = target
        self.register_buffer("factor", torch.ones(()))

    def fit(self, parts: Iterable[Tensor]) -> None:
        """Measure features of any shape, part by part; where all are 0 they stay as they are."""
        total, count = 0.0, 0
        for part in parts:
            total += float(part.square().sum(dtype=torch.float64))
            count += part.numel()
        factor = self.target * (count / total) ** 0.5 if total > 0 else 1.0
        self.factor = torch.full_like(self.factor, factor)

    def forward(self, features: Tensor) -> Tensor:
        return features * self.factor
