"""A Gaussian whose covariance is shrunk towards a multiple of the identity, for fewer rows than values.

Paper: Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
    Multivariate Analysis 88, 2004 (lemma 3.2 to 3.4: the share of the identity with the least expected squared error);
    Rippel et al., "Modeling the Distribution of Normal Data in Pre-Trained Deep Features for Anomaly Detection", ICPR
    2020, 2005.14140 (as an anomaly detector).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SMALLEST = 1e-4  # of the mean variance, added to each: two rows have a singular covariance, shrunk or not


def ledoit_wolf(rows: Tensor) -> tuple[Tensor, float]:
    """Return the shrunk covariance (D, D) of rows (N, D), with divisor N, and the share of the identity, 0 to 1.

    Equal rows, or a single one, have no covariance; theirs is the identity.
    """
    count, dim = rows.shape
    centred = rows - rows.mean(0)
    covariance = centred.T @ centred / count
    scale = covariance.diagonal().mean()  # μ
    identity = torch.eye(dim, dtype=rows.dtype, device=rows.device)
    if float(scale) <= torch.finfo(rows.dtype).tiny:
        return identity, 1.0
    distance = (covariance - scale * identity).square().sum()  # d², times D
    fourth = centred.square().sum(1).square().sum() / count
    error = (fourth - covariance.square().sum()) / count  # b̄², times D
    share = float((error.clamp(min=0) / distance).clamp(max=1)) if float(distance) > 0 else 1.0
    return (1 - share) * covariance + share * scale * identity, share


def gaussian_draws(mean: Tensor, covariance: Tensor, count: int, source: torch.Generator) -> Tensor:
    """Draw rows (count, D) from the Gaussian with a mean (D,) and a covariance (D, D), which may be singular.

    ``source`` is a generator on the CPU; the result is on the device of the mean.
    """
    variances, axes = torch.linalg.eigh(covariance.cpu().double())
    standard = torch.randn(count, len(mean), generator=source, dtype=torch.float64)
    return mean + ((standard * variances.clamp(min=0).sqrt()) @ axes.T).to(mean)


class ShrunkGaussian(nn.Module):
    """Mahalanobis distance of rows to a Gaussian with the covariance of Ledoit and Wolf. It is fitted in float64."""

    mean: Tensor
    whitening: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.empty(0))  # (D,)
        self.register_buffer("whitening", torch.empty(0, 0))  # (D, D): its transpose times it inverts the covariance

    def fit(self, rows: Tensor) -> None:
        """Fit to rows (N, D), at least one."""
        exact = rows.detach().cpu().double()
        covariance = ledoit_wolf(exact)[0]
        identity = torch.eye(len(covariance), dtype=torch.float64)
        factor = torch.linalg.cholesky(covariance + SMALLEST * covariance.diagonal().mean() * identity)
        self.mean = exact.mean(0).to(rows)
        self.whitening = torch.linalg.solve_triangular(factor, identity, upper=False).to(rows)

    def distance(self, rows: Tensor) -> Tensor:
        """Return the Mahalanobis distance of rows (N, D): (N,), at least 0."""
        return ((rows - self.mean) @ self.whitening.T).norm(dim=1)

    def gradient(self, rows: Tensor) -> Tensor:
        """Return the gradient of the distance with respect to each row (N, D); 0 at the mean."""
        white = (rows - self.mean) @ self.whitening.T
        unit = white / white.norm(dim=1, keepdim=True).clamp(min=1e-12)
        if (
            torch.compiler.is_exporting()
        ):  # OpenVINO 2026.4 mistakes a matrix for its transpose where it multiplies by both
            return (self.whitening.T @ unit[:, :, None])[:, :, 0]
        return unit @ self.whitening
