"""Losses of segmentation and reconstruction.

Paper: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, 1708.02002; Milletari et al., "V-Net", 3DV 2016,
    1606.04797 (Dice loss); Bergmann et al., "Improving Unsupervised Defect Segmentation by Applying Structural
    Similarity to Autoencoders", VISAPP 2019, 1807.02011 (SSIM loss); Johnson et al., "Perceptual Losses for Real-Time
    Style Transfer and Super-Resolution", ECCV 2016, 1603.08155.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.features.similarity import ssim
from iadbe.networks.backbone import Backbone


def focal_loss(logits: Tensor, truth: Tensor, gamma: float = 4.0) -> Tensor:
    """Return the mean of -(1 - p)^γ log p: (). It is cross-entropy that gives well-classified examples little weight.

    Args:
        logits: any shape
        truth: 0 or 1, of the same shape
        gamma: the focusing parameter γ of equation 4 (Lin 2017), without class weights
    """
    cost = F.binary_cross_entropy_with_logits(logits, truth.to(logits), reduction="none")  # -log p, stable
    return (cost * (1 - (-cost).exp()) ** gamma).mean()


def dice_loss(probability: Tensor, truth: Tensor, smooth: float = 1.0, squared: bool = True) -> Tensor:
    """Return 1 - (2 Σ p g + s) / (Σ p² + Σ g² + s), the mean over the images: (), from 0 to 1.

    Args:
        probability: p, (B, ...) in [0, 1]
        truth: g, 0 or 1, of the same shape
        smooth: s, which decides where an image and its truth are empty; 0 in the paper (Milletari 2016, section 3)
        squared: whether p and g are squared in the denominator, as in the paper; many programs leave that out
    """
    p, g = probability.flatten(1), truth.to(probability).flatten(1)
    whole = (p.square() + g.square() if squared else p + g).sum(1)
    return 1 - ((2 * (p * g).sum(1) + smooth) / (whole + smooth)).mean()


def ssim_loss(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return 1 minus the mean structural similarity of x and y, (B, C, H, W) in [0, 1]: (), from 0 to 2.

    ``window`` and ``sigma`` are those of :func:`iadbe.layers.features.similarity.ssim`.
    """
    return 1 - ssim(x, y, window, sigma).mean()


def perceptual_loss(backbone: Backbone, x: Tensor, y: Tensor) -> Tensor:
    """Return the squared distance of the features of x and y, (B, 3, H, W) in [0, 1]: ().

    It is the mean over a layer's values (equation 2 of Johnson 2016), summed over the backbone's layers; 1, 2 and 3 are
    usual. Gradients flow to x; the network and y are fixed.
    """
    pairs = zip(backbone.differentiable(x), backbone(y), strict=True)
    return torch.stack([F.mse_loss(own, other) for own, other in pairs]).sum()
