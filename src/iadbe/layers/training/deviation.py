"""The deviation loss, and scores of images from scores of positions.

Paper: Pang et al., "Explainable Deep Few-shot Anomaly Detection with Deviation Networks", 2021, 2108.00462, equations 1
    to 3. Scores of normal images shall be like those that a prior, N(0, 1), gives; anomalies shall lie at least a
    margin of five of its standard deviations above its mean.
"""

from __future__ import annotations

import torch
from torch import Tensor

from iadbe.layers.features.region import image_score

PRIOR = 5000  # scores that are drawn from the prior in each step
MARGIN = 5.0  # standard deviations


def deviation_loss(score: Tensor, anomalous: Tensor, generator: torch.Generator) -> Tensor:
    """Return the mean of |d| for normal images and max(0, 5 - d) for anomalies, d = (score - μ) / σ: ().

    Args:
        score: of images (B,)
        anomalous: their labels (B,), bool
        generator: draws the scores of the prior, whose mean and standard deviation are μ and σ; on the CPU
    """
    prior = torch.randn(PRIOR, generator=generator)
    deviation = (score - prior.mean().to(score)) / prior.std().to(score)
    return torch.where(anomalous, (MARGIN - deviation).clamp(min=0), deviation.abs()).mean()


def top_mean(scores: Tensor, share: float, region: Tensor | None = None) -> Tensor:
    """Return the mean (B,) of the highest ``share`` of scores of positions (B, h, w) that count, of one at least."""
    return image_score(scores, region, share=share)
