"""Kullback-Leibler divergence of a diagonal Gaussian from the standard one.

Paper: Kingma and Welling, "Auto-Encoding Variational Bayes", ICLR 2014, 1312.6114, appendix B.
"""

from __future__ import annotations

from torch import Tensor


def kl_divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return KL(N(mean, variance) || N(0, I)) of each row (B, D): (B,), at least 0."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2
