"""Coordinate attention: weights of rows and of columns for each channel.

Paper: Hou et al., "Coordinate Attention for Efficient Mobile Network Design", CVPR 2021, 2103.02907, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CoordinateAttention(nn.Module):
    """x times a weight of its row and one of its column, both from 0 to 1, at each channel."""

    def __init__(self, channels: int, reduction: int = 32) -> None:
        """Make the layer with random weights.

        Args:
            channels: channels of x
            reduction: the hidden layer has this many times fewer channels, but at least 8
        """
        super().__init__()
        hidden = max(8, channels // reduction)
        self.shared = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.BatchNorm2d(hidden), nn.Hardswish())
        self.rows, self.columns = (nn.Conv2d(hidden, channels, 1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, channels, h, w) to the same shape."""
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)  # (B, C, h, 1), (B, C, w, 1)
        both = self.shared(torch.cat([rows, columns], 2))  # one pass, so that both share its statistics
        rows, columns = both.split([rows.shape[2], columns.shape[2]], 2)
        return x * self.rows(rows).sigmoid() * self.columns(columns.transpose(2, 3)).sigmoid()
