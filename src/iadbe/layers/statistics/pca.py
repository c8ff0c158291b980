"""Principal component analysis (PCA) through the smaller of two matrices: (N, N) for few rows, (D, D) for short ones.

For N centred rows X with X Xᵀ = U L Uᵀ, the principal axes are L^(-1/2) Uᵀ X.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 4096  # columns (or rows) converted to float64 at a time
SMALLEST = 1e-10  # variance, as a share of the largest, below which an axis is rounding noise


class PrincipalComponents(NamedTuple):
    """The mean of rows and their principal axes, that of the largest variance first."""

    mean: Tensor  # (D,)
    axes: Tensor  # (K, D), orthonormal rows
    variance: Tensor  # (K,) of the rows along each axis, with divisor N - 1

    def project(self, rows: Tensor) -> Tensor:
        """Return the principal components (N, K) of rows (N, D)."""
        return (rows - self.mean) @ self.axes.T

    def residual(self, rows: Tensor) -> Tensor:
        """Return the reconstruction error of rows (N, D), as vectors (N, D)."""
        centred = rows - self.mean
        return centred - (centred @ self.axes.T) @ self.axes


def pca(rows: Tensor, share: float = 1.0, most: int | None = None) -> PrincipalComponents:
    """Return the fewest principal axes that explain ``share`` of the variance of rows (N, D), and at most ``most``.

    Equal rows, or a single one, have no axes: K is 0. Computed in float64 on the CPU.
    """
    rows = rows.detach().cpu()
    mean = rows.mean(0, dtype=torch.float64)  # (D,)
    count, width = rows.shape
    wide = count < width
    scatter = torch.zeros(*([min(count, width)] * 2), dtype=torch.float64)
    for start in range(0, width if wide else count, BLOCK):
        part = _centred(rows, mean, start, wide)
        scatter += part @ part.T if wide else part.T @ part
    values, vectors = torch.linalg.eigh(scatter)  # ascending
    values, vectors = values.flip(0), vectors.flip(1)
    # rounding of equal rows leaves a largest value too, so it is compared with the norm of the rows
    floor = torch.finfo(rows.dtype).eps ** 2 * rows.double().square().sum()
    keep = int((values > torch.maximum(SMALLEST * values[0], floor)).sum())
    if keep and share < 1:
        kept = values.clamp(min=0).cumsum(0)
        keep = min(keep, int((kept < share * kept[-1]).sum()) + 1)
    keep = keep if most is None else min(keep, most)
    values, vectors = values[:keep], vectors[:, :keep]
    if wide:
        lengths = values.sqrt()[:, None]
        parts = [vectors.T @ _centred(rows, mean, at, wide) / lengths for at in range(0, width, BLOCK)]
        axes = torch.cat(parts, 1)
    else:
        axes = vectors.T
    kind = rows.dtype
    return PrincipalComponents(mean.to(kind), axes.to(kind).contiguous(), (values / max(count - 1, 1)).to(kind))


def _centred(rows: Tensor, mean: Tensor, start: int, wide: bool) -> Tensor:
    """Return a block of columns (of wide rows) or of rows, centred, in float64."""
    block = slice(start, start + BLOCK)
    return rows[:, block].double() - mean[block] if wide else rows[block].double() - mean
