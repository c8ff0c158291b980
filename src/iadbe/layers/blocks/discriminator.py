"""The discriminator of normal and noisy features, with memory that does not depend on the number of rows.

Paper: Liu et al., "SimpleNet", CVPR 2023, 2303.15140: linear, batch norm, leaky ReLU of slope 0.2, linear.
Differs:
    * The batch statistics of the hidden layer are computed from the mean m and covariance C of the input, as W m + b
      and diag(W C Wᵀ), which is exact. So the hidden layer is computed in parts, and again for the gradients.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

ROWS = 16384  # whose hidden values are in memory at a time


class Discriminator(nn.Module):
    """Maps rows (N, D) to logits (N,)."""

    def __init__(self, dim: int, width: int = 1024) -> None:
        super().__init__()
        self.hidden, self.norm = nn.Linear(dim, width), nn.BatchNorm1d(width)
        self.out = nn.Linear(width, 1, bias=False)
        nn.init.xavier_normal_(self.hidden.weight)
        nn.init.xavier_normal_(self.out.weight)

    def forward(self, rows: Tensor) -> Tensor:
        if self.hidden.out_features <= self.hidden.in_features:  # smaller than the rows
            return self.out(F.leaky_relu(self.norm(self.hidden(rows)), 0.2))[:, 0]
        norm: Any = self.norm  # for mypy its statistics may be None
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
        """Return mean and variance (width,) of the hidden values over the rows, and update the running ones."""
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
