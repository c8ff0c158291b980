"""Principal components of rows, through the smaller of two matrices: (N, N) if rows are few, (D, D) if short.

The axes of N centred rows X span the same space as X itself, so with X Xᵀ = U L Uᵀ they are L^(-1/2) Uᵀ X.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

BLOCK = 4096  # columns (or rows) brought to double precision at a time
SMALLEST = 1e-10  # variance, as a share of the largest, below which an axis is rounding noise


class PrincipalComponents(NamedTuple):
    """What rows have in common: their mean, and the directions in which they differ, the largest first."""

    mean: Tensor  # (D,)
    axes: Tensor  # (K, D), orthonormal rows
    variance: Tensor  # (K,) of the rows along each axis, with divisor N - 1

    def project(self, rows: Tensor) -> Tensor:
        """Return the coordinates (N, K) of rows (N, D)."""
        return (rows - self.mean) @ self.axes.T

    def residual(self, rows: Tensor) -> Tensor:
        """Return what of rows (N, D) the axes cannot express: (N, D)."""
        centred = rows - self.mean
        return centred - (centred @ self.axes.T) @ self.axes


def pca(rows: Tensor, share: float = 1.0, most: int | None = None) -> PrincipalComponents:
    """Return the fewest axes that keep ``share`` of the variance of rows (N, D), and at most ``most``.

    Equal rows, or a single one, have no axis: K is 0. Computed in double precision on the processor.
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
    # rounding of equal rows leaves a largest value, too: it is measured against the rows themselves
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
    """Return a block of columns (of wide rows) or of rows, in double precision, less the mean."""
    block = slice(start, start + BLOCK)
    return rows[:, block].double() - mean[block] if wide else rows[block].double() - mean
