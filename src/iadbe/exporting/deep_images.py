"""The intensity range of a model inside an exported graph: from raw values to levels from 0 to 255.

It does what reading a deep image does (:mod:`iadbe.files.image_io`): channels are projected, values scaled by the range
of the model, clipped and rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from iadbe.types import IntensityRange


class Levels(nn.Module):
    """Scales deep images by one range."""

    weights: Tensor
    offset: Tensor

    def __init__(self, intensity: IntensityRange) -> None:
        super().__init__()
        self.intensity = intensity
        rows, offset = torch.empty(0, 0), torch.empty(0)
        if intensity.projection is not None:
            rows, offset = torch.tensor(intensity.projection.weights), torch.tensor(intensity.projection.offset)
        self.register_buffer("weights", rows, persistent=False)  # (1 or 3, C)
        self.register_buffer("offset", offset, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Return images (N, H, W, 3), whole levels from 0 to 255 as float32, of raw values (N, H, W, C) float32."""
        if self.intensity.projection is not None:
            values = values @ self.weights.T + self.offset
        low, high = self.intensity.low, self.intensity.high
        levels = ((values - low) * (255 / (high - low))).clamp(0, 255).round()
        return levels.expand(-1, -1, -1, 3)
