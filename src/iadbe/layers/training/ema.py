"""Exponential moving average of a network's weights.

Paper: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM J. Control Optim. 1992;
    Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, 1703.01780 (the ramp-up).
"""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class EMA(Generic[N]):
    """A copy of a network whose weights follow it: w̄ ← d w̄ + (1 - d) w after every step, from w̄ = w.

    Give it to the training loop as ``state``.

    Attributes:
        network: the copy, in evaluation mode and without gradients
    """

    def __init__(self, network: N, decay: float, ramp_up: bool = False) -> None:
        """Start with the weights that the network has.

        Args:
            network: is followed
            decay: d, in [0, 1)
            ramp_up: at step n = 1, 2 … d is at most 1 - 1 / (n + 1), so that the first weights are soon forgotten
        """
        if not 0 <= decay < 1:
            raise ValueError(f"decay is at least 0 and below 1, not {decay}")
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.decay, self.ramp_up, self.steps = decay, ramp_up, 0
        self._followed = network

    @torch.no_grad()
    def update(self) -> None:
        """Follow the network, after a step. Buffers, such as the statistics of batch norms, are copied."""
        self.steps += 1
        decay = min(self.decay, 1 - 1 / (self.steps + 1)) if self.ramp_up else self.decay
        own, followed = ([p.detach() for p in net.parameters()] for net in (self.network, self._followed))
        torch._foreach_lerp_(own, followed, 1 - decay)
        for average, new in zip(self.network.buffers(), self._followed.buffers(), strict=True):
            average.copy_(new)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the number of steps."""
        return {"network": self.network.state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Take what :meth:`state_dict` has returned."""
        self.network.load_state_dict(state_dict["network"])
        self.steps = state_dict["steps"]
