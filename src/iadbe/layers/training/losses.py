"""The focal loss: cross-entropy that gives well-classified examples little weight.

Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, 1708.02002, equation 4, without class weights.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 4.0) -> Tensor:
    """Return the mean of -(1 - p)^γ log p: ().

    Args:
        logits: any shape
        truth: 0 or 1, of the same shape
        gamma: the focusing parameter γ of equation 4
    """
    cost = F.binary_cross_entropy_with_logits(logits, truth.to(logits), reduction="none")  # -log p, stable
    return (cost * (1 - (-cost).exp()) ** gamma).mean()
