"""StableAdamW, which a single unusual batch cannot destabilise, and a schedule of the learning rate.

Paper: Wortsman et al., "Stable and low-precision training for large-scale vision-language models", NeurIPS 2023,
    2304.13013 (StableAdamW: Adafactor's update clipping in AdamW); Reddi et al., ICLR 2018 (AMSGrad).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


class StableAdamW(torch.optim.Optimizer):
    """AdamW with update clipping: the learning rate of a parameter is divided by max(1, RMS(g / √v)).

    The largest v so far counts (AMSGrad), as in Dinomaly.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step with the current gradients."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["steps"] = 0
                    state["mean"], state["square"], state["largest"] = (torch.zeros_like(parameter) for _ in range(3))
                state["steps"] += 1
                state["mean"].lerp_(gradient, 1 - first)
                state["square"].lerp_(gradient * gradient, 1 - second)
                torch.maximum(state["largest"], state["square"], out=state["largest"])
                scale = (state["largest"] / (1 - second ** state["steps"])).sqrt_().add_(group["eps"])
                clip = (gradient / scale).square().mean().sqrt().clamp(min=1)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                rate = group["lr"] / (1 - first ** state["steps"])
                parameter.sub_(state["mean"] / scale * (rate / clip))


def warmup_cosine(number: int, steps: int, warm: int, final: float) -> float:
    """Return the factor on the learning rate at step ``number`` of ``steps``.

    It rises linearly from 0 to 1 in ``warm`` steps, at most a tenth of all, then falls to ``final`` along a cosine.
    """
    warm = min(warm, steps // 10)
    if number < warm:
        return number / warm
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (number - warm) / max(1, steps - warm)))
