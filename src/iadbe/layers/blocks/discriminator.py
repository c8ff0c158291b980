"""A small network that tells normal features from noisy ones, in little memory whatever the number of rows.

Paper: Liu et al., "SimpleNet", CVPR 2023, 2303.15140: linear, batch norm, leaky ReLU of slope 0.2, linear.
Differs: what batch norm needs to know about the hidden layer, its mean and variance, follows exactly from the mean m
    and covariance C of the rows that come in, as W m + b and diag(W C Wᵀ); so the hidden layer, by far the largest
    thing in training, is made part by part, and again when gradients are due.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROWS = 16384  # whose hidden layer is held at a time


class Discriminator(nn.Module):
    """Maps rows (N, D) to one number each (N,)."""

    def __init__(self, dim: int, width: int = 1024) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(dim, width), nn.BatchNorm1d(width)
        self.out = nn.Linear(width, 1, bias=False)
        nn.init.xavier_normal_(self.hidden.weight)
        nn.init.xavier_normal_(self.out.weight)

    def forward(self, rows: Tensor) -> Tensor:
        if self.hidden.out_features <= self.hidden.in_features:  # small beside the rows themselves
            return self.out(F.leaky_relu(self.norm(self.hidden(rows)), 0.2))[:, 0]
        norm: Any = self.norm  # its statistics may be None elsewhere
        mean, variance = self._moments(rows) if self.training else (norm.running_mean, norm.running_var)
        gain = norm.weight * (variance + norm.eps).rsqrt()
        weight = self.hidden.weight * gain[:, None]
        bias = (self.hidden.bias - mean) * gain + self.norm.bias
        parts = rows.split(ROWS)
        if not torch.is_grad_enabled() or len(parts) == 1:
            return torch.cat([self._scores(part, weight, bias) for part in parts])
        return torch.cat([checkpoint(self._scores, part, weight, bias, use_reentrant=False) for part in parts])

    def _scores(self, rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return self.out(F.leaky_relu_(F.linear(rows, weight, bias), 0.2))[:, 0]

    def _moments(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance (width,) of the hidden layer over the rows, and let the running ones follow."""
        count, middle = len(rows), rows.mean(0)
        centred = rows - middle
        covariance = centred.T @ centred / count
        mean = self.hidden(middle)
        variance = ((self.hidden.weight @ covariance) * self.hidden.weight).sum(1).clamp(min=0)
        with torch.no_grad():
            norm: Any = self.norm
            norm.running_mean.lerp_(mean, norm.momentum)
            norm.running_var.lerp_(variance * (count / max(count - 1, 1)), norm.momentum)
            norm.num_batches_tracked += 1
        return mean, variance
