"""Anomalous features by gradient ascent: noisy features move along the gradient of a discriminator's loss.

Paper: Chen et al., "A Unified Anomaly Synthesis Strategy with Gradient Ascent for Industrial Anomaly Detection and
    Localization" (GLASS), ECCV 2024, 2407.09359, section 3.3: gradient ascent and truncated projection.

The discriminator's batch norm takes its statistics from normal and noisy features together. The normal ones do not
move, so their hidden values are computed once. The results are those of the plain loop, which the tests compare with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.blocks.discriminator import Discriminator

LENGTH = 0.001  # of a step, for the authors' features of 1536 values
EVERY = 5  # steps between two projections


def ascended(
    discriminator: Discriminator,
    normal: Tensor,
    noisy: Tensor,
    steps: int,
    length: float,
    project: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return noisy features (N, D) after ``steps`` steps, with gradients to where they started.

    Args:
        discriminator: in training mode; the running statistics of its batch norm follow every step
        normal: normal features (N, D)
        noisy: where the ascent starts (N, D)
        steps: number of steps along the normalised gradient of the cross-entropy of ``noisy`` with the label 1
        length: of a step
        project: is applied after every fifth step
    """
    gradient = _loss_gradient(discriminator, normal.detach())
    for number in range(1, steps + 1):
        ahead = gradient(noisy.detach())
        noisy = noisy + length * ahead / (ahead.norm(dim=1, keepdim=True) + 1e-10)
        if number % EVERY == 0:
            noisy = project(noisy)
    return noisy


def projected(points: Tensor, origin: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Move points (N, D) along the line from their origin (N, D) to a distance from ``low`` to ``high``, both ()."""
    away = points - origin
    distance = away.norm(dim=1, keepdim=True)
    return origin + away * (distance.clamp(low, high) / (distance + 1e-10))


def _loss_gradient(discriminator: Discriminator, normal: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a function from noisy features (N, D) to the gradient (N, D) of their mean cross-entropy with label 1."""
    norm: Any = discriminator.norm
    hidden_layer = discriminator.hidden
    weight, bias, out = (p.detach() for p in (hidden_layer.weight, hidden_layer.bias, discriminator.out.weight))
    scale, offset = norm.weight.detach(), norm.bias.detach()
    hidden = F.linear(normal, weight, bias)
    middle = hidden.mean(0)  # subtracted from all hidden values, so that squares are summed without cancellation
    squares = (hidden - middle).square().sum(0)
    del hidden

    def gradient(noisy: Tensor) -> Tensor:
        noisy = noisy.requires_grad_()
        with torch.enable_grad():
            values = F.linear(noisy, weight, bias - middle)
            total = len(normal) + len(noisy)
            mean = values.sum(0) / total
            variance = (squares + values.square().sum(0)) / total - mean.square()
            normed = torch.addcmul(offset, values - mean, scale * (variance + norm.eps).rsqrt())
            loss = F.softplus(-F.linear(F.leaky_relu(normed, 0.2), out)).mean()
        with torch.no_grad():
            norm.running_mean.lerp_(mean + middle, norm.momentum)
            norm.running_var.lerp_(variance * (total / (total - 1)), norm.momentum)
            norm.num_batches_tracked += 1
        return torch.autograd.grad(loss, noisy)[0]

    return gradient
