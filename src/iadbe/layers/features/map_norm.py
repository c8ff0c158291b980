"""Layer normalisation of whole feature maps, with a trained scale and offset for every value.

Paper: Ba et al., "Layer Normalization", 2016, 1607.06450. Re-implementations of FastFlow and U-Flow normalise so.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class MapNorm(nn.Module):
    """Normalises each map (C, h, w) to mean 0 and variance 1, then scales and shifts each of its values.

    Without a size the parameters are empty, to be loaded; ``forward`` then needs them loaded.
    """

    def __init__(self, channels: int = 0, height: int = 0, width: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, height, width))
        self.bias = nn.Parameter(torch.zeros(channels, height, width))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, h, w) to the same shape."""
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
