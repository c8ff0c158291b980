"""The Sinkhorn divergence: how far two clouds of points are from each other by regularised optimal transport.

Paper: Feydy et al., "Interpolating between Optimal Transport and MMD using Sinkhorn Divergences", AISTATS 2019,
    1810.08278, equations 3, 8 and 9; Cuturi, "Sinkhorn Distances", NeurIPS 2013.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def sinkhorn_divergence(first: Tensor, second: Tensor, blur: float = 0.05, scaling: float = 0.8) -> Tensor:
    """Return OT(a, b) - OT(a, a) / 2 - OT(b, b) / 2 of pairs of clouds with the cost ½ ‖x - y‖²: (B,).

    All points of a cloud weigh the same. It is 0 for equal clouds, whatever the order of the points.

    Args:
        first: B clouds of N points (B, N, C)
        second: B clouds of M points (B, M, C)
        blur: square root of the temperature ε, a distance
        scaling: factor of the distance from one iteration to the next, which falls to ``blur`` from the clouds' extent
    """
    return (
        _transport(first, second, blur, scaling)
        - _transport(first, first, blur, scaling) / 2
        - _transport(second, second, blur, scaling) / 2
    )


def _transport(first: Tensor, second: Tensor, blur: float, scaling: float) -> Tensor:
    """Return the regularised cost of transport (B,); its gradient is that of the cost under the optimal plan."""
    with torch.no_grad():
        cost = _cost(first, second)
        toward_first, toward_second = torch.zeros_like(cost[:, :, 0]), torch.zeros_like(cost[:, 0])
        for temperature in _temperatures(float(cost.amax()), blur, scaling):
            new_first = _softmin(cost, toward_second, temperature)
            new_second = _softmin(cost.mT, toward_first, temperature)
            # both at once, averaged with those before, converges for equal clouds too
            toward_first, toward_second = (toward_first + new_first) / 2, (toward_second + new_second) / 2
    # potentials are optimal, so they need no gradient
    last_first = _softmin(_cost(first, second.detach()), toward_second, blur**2)
    last_second = _softmin(_cost(second, first.detach()), toward_first, blur**2)
    return last_first.mean(1) + last_second.mean(1)


def _cost(first: Tensor, second: Tensor) -> Tensor:
    """Return ½ ‖x - y‖²: (B, N, M)."""
    squares = first.square().sum(-1)[:, :, None] + second.square().sum(-1)[:, None]
    return (squares / 2 - first @ second.mT).clamp(min=0)


def _softmin(cost: Tensor, potential: Tensor, temperature: float) -> Tensor:
    """Return -ε log Σ exp((g - C) / ε) / M over the second cloud: (B, N)."""
    values = (potential[:, None] - cost) / temperature
    return -temperature * (values.logsumexp(2) - math.log(cost.shape[2]))


def _temperatures(largest: float, blur: float, scaling: float) -> list[float]:
    """Return the temperatures of the iterations, from the largest cost to ``blur``², which comes several times."""
    distance, found = math.sqrt(max(2 * largest, blur**2)), []
    while distance > blur:
        found.append(distance**2)
        distance *= scaling
    return [*found, *[blur**2] * 5]
