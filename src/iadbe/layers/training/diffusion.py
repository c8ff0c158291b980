"""Denoising diffusion: the schedule of the noise, the loss of its prediction, one-step estimates, and sampling.

Paper: Ho et al., "Denoising Diffusion Probabilistic Models", NeurIPS 2020, 2006.11239; Nichol and Dhariwal, "Improved
    Denoising Diffusion Probabilistic Models", ICML 2021, 2102.09672 (learnt variance, hybrid loss, fewer steps to
    sample); Zhang et al., "RealNet", CVPR 2024, 2403.05897 (samples of a given anomaly strength).

x_t = √ᾱ_t x_0 + √(1 - ᾱ_t) ε, for t from 0 to T - 1, with images x_0 in [-1, 1]. Times (B,) are int64 on the CPU, as is
the schedule, which is computed in double precision.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from iadbe.layers.features.region import mean_score

STEPS = 1000
FIRST, LAST = 1e-4, 0.02  # β of the linear schedule of 1000 steps
LEVEL = 1 / 255  # half of the distance of two grey levels, in [-1, 1]
Network = Callable[[Tensor, Tensor], Tensor]  # (B, C, H, W), times (B,) -> (B, C, H, W), or 2 C with a variance


class NoiseSchedule:
    """How much noise there is at each time, by default β linear from 0.0001 to 0.02 in 1000 steps.

    Attributes:
        times: what the network is given at each time (T,): itself, unless steps are left out
    """

    def __init__(self, betas: np.ndarray | None = None, times: np.ndarray | None = None) -> None:
        """Take β (T,), each between 0 and 1."""
        betas = np.linspace(FIRST, LAST, STEPS) if betas is None else np.asarray(betas, np.float64)
        self.times = torch.from_numpy(np.arange(len(betas)) if times is None else times)
        self.kept = np.cumprod(1 - betas)  # ᾱ
        before = np.append(1.0, self.kept[:-1])
        variance = betas * (1 - before) / (1 - self.kept)  # β̃ of q(x_{t-1} | x_t, x_0), 0 at the first time
        self._signal, self._noise = self.kept**0.5, (1 - self.kept) ** 0.5
        self._of_clean = betas * before**0.5 / (1 - self.kept)
        self._of_noised = (1 - before) * (1 - betas) ** 0.5 / (1 - self.kept)
        self._log_least = np.log(np.append(variance[1:2], variance[1:]) if len(betas) > 1 else betas)
        self._log_most = np.log(betas)

    def __len__(self) -> int:
        return len(self.kept)

    def spaced(self, count: int) -> NoiseSchedule:
        """Return the schedule of ``count`` of the times, at equal distances from the first.

        Raises ValueError where no whole distance gives so many.
        """
        for distance in range(1, len(self) + 1):
            times = np.arange(0, len(self), distance)
            if len(times) == count:
                kept = self.kept[times]
                return NoiseSchedule(1 - kept / np.append(1.0, kept[:-1]), self.times.numpy()[times])
        raise ValueError(f"{count} of {len(self)} steps cannot be at equal distances")

    def noised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return x_t of images x_0 (B, C, H, W) at times t (B,), given noise ε of their shape."""
        return self._at(self._signal, t, x) * x + self._at(self._noise, t, x) * noise

    def denoised(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Return the estimate of x_0 in one step from x_t (B, C, H, W), given the (predicted) noise ε."""
        return (x - self._at(self._noise, t, x) * noise) / self._at(self._signal, t, x)

    def deviation(self, t: Tensor, like: Tensor) -> Tensor:
        """Return √(1 - ᾱ_t), (B, 1, 1, 1)."""
        return self._at(self._noise, t, like)

    def posterior_mean(self, clean: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Return the mean of q(x_{t-1} | x_t, x_0), (B, C, H, W)."""
        return self._at(self._of_clean, t, x) * clean + self._at(self._of_noised, t, x) * x

    def log_variance(self, t: Tensor, share: Tensor) -> Tensor:
        """Return log Σ between log β̃_t (``share`` is -1) and log β_t (1); ``share`` is (B, C, H, W), the network's."""
        part = (share + 1) / 2
        return part * self._at(self._log_most, t, share) + (1 - part) * self._at(self._log_least, t, share)

    def _at(self, values: np.ndarray, t: Tensor, like: Tensor) -> Tensor:
        return torch.from_numpy(values)[t].to(torch.float32).to(like.device).view(-1, 1, 1, 1)


def noise_like(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return standard normal noise of the shape of ``x``, drawn on the CPU so that it is the same on every device."""
    return torch.randn(x.shape, generator=generator).to(x.device)


def hybrid_loss(
    schedule: NoiseSchedule, network: Network, x: Tensor, t: Tensor, noise: Tensor, region: Tensor | None = None
) -> Tensor:
    """Return the squared error of the predicted noise plus the variational bound in bits per value: ().

    The bound trains the variance alone (Nichol and Dhariwal 2021, equation 16; here of weight 1, as RealNet has it).

    Args:
        schedule: of the noise
        network: predicts noise and variance, 2 C channels
        x: images (B, C, H, W) in [-1, 1]
        t: times (B,)
        noise: ε, shaped like ``x``
        region: over which the loss is a mean, (B, H, W) bool; None: all pixels
    """
    noised = schedule.noised(x, t, noise)
    predicted, share = network(noised, schedule.times[t].to(x.device)).float().chunk(2, 1)
    error = mean_score((predicted - noise).square(), region)
    mean = schedule.posterior_mean(schedule.denoised(noised, t, predicted.detach()), noised, t)
    truth, log_variance = schedule.posterior_mean(x, noised, t), schedule.log_variance(t, share)
    least = schedule.log_variance(t, torch.full_like(x[:, :1, :1, :1], -1.0))
    divergence = 0.5 * (log_variance - least - 1 + (least - log_variance).exp())
    divergence = divergence + 0.5 * (truth - mean).square() * (-log_variance).exp()
    likelihood = discretised_log_likelihood(x, mean, 0.5 * log_variance)
    first = (t == 0).view(-1, 1, 1, 1).to(x.device)
    bound = mean_score(torch.where(first, -likelihood, divergence), region) / math.log(2.0)
    return (error + bound).mean()


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Return the log of a Gaussian's mass in the grey level of each value of ``x``, of 256 in [-1, 1]; same shape.

    The outermost levels reach to infinity.
    """
    from_mean, scale = x - mean, (-log_deviation).exp()
    above, below = _normal_cdf(scale * (from_mean + LEVEL)), _normal_cdf(scale * (from_mean - LEVEL))
    mass = torch.where(x < -0.999, above, torch.where(x > 0.999, 1 - below, above - below))
    return mass.clamp(min=1e-12).log()


@torch.no_grad()
def sampled(
    schedule: NoiseSchedule, network: Network, noise: Tensor, generator: torch.Generator, strength: float = 0.0
) -> Tensor:
    """Return samples (B, C, H, W) in about [-1, 1], from x_T = ``noise`` backwards through all times of the schedule.

    Args:
        schedule: mostly a spaced one
        network: predicts noise and variance, 2 C channels
        noise: standard normal (B, C, H, W)
        generator: draws the noise of every step
        strength: s, RealNet's anomaly strength: every step has the variance (1 + s) Σ; 0: normal images
    """
    x = noise
    for at in range(len(schedule) - 1, -1, -1):
        t = torch.full((len(x),), at)
        predicted, share = network(x, schedule.times[t].to(x.device)).float().chunk(2, 1)
        clean = schedule.denoised(x, t, predicted).clamp(-1, 1)
        x = schedule.posterior_mean(clean, x, t)
        if at:
            deviation = (0.5 * schedule.log_variance(t, share)).exp() * math.sqrt(1 + strength)
            x = x + deviation * noise_like(x, generator)
    return x


def _normal_cdf(x: Tensor) -> Tensor:
    """Return the distribution function of the standard normal distribution."""
    return 0.5 * torch.erfc(-x / math.sqrt(2.0))
