"""Similarity of two images: SSIM, over several scales too, and local normalised cross-correlation.

Paper: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004; Wang et
    al., "Multi-scale Structural Similarity for Image Quality Assessment", Asilomar 2003 (MS-SSIM).
Differs:
    * Windows are mirrored at the border, also in MS-SSIM, whose code leaves the border out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.features.anomaly_map import blur_matrix
from iadbe.layers.features.region import average_pooled

FIVE_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of the scales, the finest first
FOUR_SCALES = (0.0516, 0.3295, 0.3463, 0.2726)  # without the coarsest
LEAST = 1e-6  # of a mean that is raised to an exponent, whose slope is infinite at 0
C1, C2 = 0.01**2, 0.03**2  # (K1 L)² and (K2 L)² of the paper, for values in [0, 1]


def ssim(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity (SSIM) of x and y, (B, C, H, W) in [0, 1], at each pixel: from -1 to 1.

    The window is a Gaussian of standard deviation ``sigma`` and side ``window``, odd, mirrored at the border (equation
    13 of the paper, with α = β = γ = 1).
    """
    luminance, structure = _terms(x, y, window, sigma)
    return luminance * structure


def ssim_pyramid(
    x: Tensor, y: Tensor, scales: int, window: int = 11, sigma: float = 1.5
) -> list[tuple[Tensor, Tensor]]:
    """Return SSIM and its structure term at each pixel, each (B, C, h, w), of x and y and of their halves, and so on.

    ``window`` is the side of the window in pixels at every scale; the coarsest image must be larger than half of it.
    """
    found = []
    for scale in range(scales):
        if scale:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        luminance, structure = _terms(x, y, window, sigma)
        found.append((luminance * structure, structure))
    return found


def ms_ssim(
    pyramid: Sequence[tuple[Tensor, Tensor]], exponents: Sequence[float], region: Tensor | None = None
) -> Tensor:
    """Return the multi-scale SSIM of each image, the mean over channels: (B,), from 0 to 1.

    It is the product over scales of the mean structure term, at the coarsest scale of the mean SSIM, each raised to
    its exponent; negative means count as 0.

    Args:
        pyramid: of :func:`ssim_pyramid`
        exponents: of each scale, the finest first
        region: which pixels count, (B, H, W) bool; None: all
    """
    maps = [structure for _, structure in pyramid[:-1]] + [pyramid[-1][0]]
    means = [average_pooled(one, region) for one in maps]
    powers = [mean.clamp(min=LEAST) ** e for mean, e in zip(means, exponents, strict=True)]
    return torch.stack(powers).prod(0).mean(1)


def cross_correlation(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the normalised cross-correlation of x and y, (B, C, H, W) in [0, 1], around each pixel: from -1 to 1.

    The window is that of :func:`ssim`. Brightness and contrast have no influence, but for a constant (the structure
    term of SSIM, equation 10 of the paper): where both images are flat, the correlation is 1.
    """
    x, y = x - 0.5, y - 0.5  # smaller values, so that less cancels
    mx, my, _, xy = _moments(x, y, window, sigma)
    xx, yy = _moments(x, x, window, sigma)[3], _moments(y, y, window, sigma)[3]
    variances = (xx - mx * mx).clamp(min=0) * (yy - my * my).clamp(min=0)
    return ((xy - mx * my + C2 / 2) / (variances.sqrt() + C2 / 2)).clamp(-1, 1)


def _terms(x: Tensor, y: Tensor, window: int, sigma: float) -> tuple[Tensor, Tensor]:
    """Return the luminance and the structure term of SSIM at each pixel."""
    mx, my, squares, xy = _moments(x, y, window, sigma)
    means = mx * mx + my * my
    return (2 * mx * my + C1) / (means + C1), (2 * (xy - mx * my) + C2) / (squares - means + C2)


def _moments(x: Tensor, y: Tensor, window: int, sigma: float) -> tuple[Tensor, ...]:
    """Return the local means of x, y, x² + y² and x y."""
    down, across = (blur_matrix(side, sigma, window // 2, x) for side in x.shape[-2:])
    mx, my, squares, xy = (down @ part @ across.T for part in (x, y, x * x + y * y, x * y))
    return mx, my, squares, xy
