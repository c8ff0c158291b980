"""Similarity of two images at each pixel: SSIM and local normalised cross-correlation.

Paper: Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP 2004.
"""

from __future__ import annotations

from torch import Tensor

from iadbe.layers.features.anomaly_map import blur_matrix

C1, C2 = 0.01**2, 0.03**2  # (K1 L)² and (K2 L)² of the paper, for values in [0, 1]


def ssim(x: Tensor, y: Tensor, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Return the structural similarity (SSIM) of x and y, (B, C, H, W) in [0, 1], at each pixel: from -1 to 1.

    The window is a Gaussian of standard deviation ``sigma`` and side ``window``, odd, mirrored at the border (equation
    13 of the paper, with α = β = γ = 1).
    """
    mx, my, squares, xy = _moments(x, y, window, sigma)
    means = mx * mx + my * my
    luminance = (2 * mx * my + C1) / (means + C1)
    structure = (2 * (xy - mx * my) + C2) / (squares - means + C2)
    return luminance * structure


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


def _moments(x: Tensor, y: Tensor, window: int, sigma: float) -> tuple[Tensor, ...]:
    """Return the local means of x, y, x² + y² and x y."""
    down, across = (blur_matrix(side, sigma, window // 2, x) for side in x.shape[-2:])
    mx, my, squares, xy = (down @ part @ across.T for part in (x, y, x * x + y * y, x * y))
    return mx, my, squares, xy
