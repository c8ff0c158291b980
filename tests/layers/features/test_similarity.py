import numpy as np
import pytest
import torch

from iadbe.layers.features.similarity import cross_correlation, ms_ssim, ssim, ssim_pyramid

X, Y = (torch.rand(2, 3, 20, 26, generator=torch.Generator().manual_seed(s)) for s in (0, 1))


def pixelwise(similarity, x, y, window, sigma=1.5):
    """Evaluate a similarity of two weighted windows, pixel by pixel, on (H, W)."""
    reach = window // 2
    line = np.exp(-(np.arange(-reach, reach + 1) ** 2) / (2 * sigma**2))
    weight = np.outer(line, line) / np.outer(line, line).sum()
    x, y = (np.pad(v, reach, mode="reflect") for v in (x, y))
    found = np.empty((x.shape[0] - 2 * reach, x.shape[1] - 2 * reach))
    for i, j in np.ndindex(found.shape):
        p, q = (v[i : i + window, j : j + window] for v in (x, y))
        mp, mq = (weight * p).sum(), (weight * q).sum()
        vp, vq = (weight * (p - mp) ** 2).sum(), (weight * (q - mq) ** 2).sum()
        found[i, j] = similarity(mp, mq, vp, vq, (weight * (p - mp) * (q - mq)).sum())
    return found


def paper_ssim(mp, mq, vp, vq, covariance):
    return ((2 * mp * mq + 1e-4) * (2 * covariance + 9e-4)) / ((mp**2 + mq**2 + 1e-4) * (vp + vq + 9e-4))


def paper_structure(mp, mq, vp, vq, covariance):
    return (covariance + 4.5e-4) / (np.sqrt(vp * vq) + 4.5e-4)


@pytest.mark.parametrize(("function", "formula"), [(ssim, paper_ssim), (cross_correlation, paper_structure)])
@pytest.mark.parametrize("window", [11, 7])
def test_they_equal_a_loop_over_pixels(function, formula, window):
    found = function(X, Y, window)
    assert found.shape == X.shape
    for b, c in np.ndindex(2, 3):
        expected = pixelwise(formula, X[b, c].double().numpy(), Y[b, c].double().numpy(), window)
        np.testing.assert_allclose(found[b, c].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("function", [ssim, cross_correlation])
def test_equal_is_one_and_opposite_is_negative(function):
    torch.testing.assert_close(function(X, X), torch.ones_like(X), rtol=0, atol=1e-4)
    contrast = X - 0.5
    assert function(0.5 + contrast, 0.5 - contrast).max() < 0


def test_ssim_is_differentiable():
    y = Y.double().requires_grad_()
    assert torch.autograd.gradcheck(lambda v: ssim(X[:1, :1, :8, :8].double(), v, 5), y[:1, :1, :8, :8])


def test_correlation_ignores_brightness_and_contrast():
    darker = 0.1 + 0.5 * X
    assert float(cross_correlation(X, darker).min()) > 0.97
    assert float(ssim(X, darker).mean()) < 0.9
    flat = torch.full((1, 1, 12, 12), 0.2)
    torch.testing.assert_close(cross_correlation(flat, flat + 0.3), torch.ones_like(flat), rtol=0, atol=1e-2)


def paper_contrast_structure(mp, mq, vp, vq, covariance):
    return (2 * covariance + 9e-4) / (vp + vq + 9e-4)


def test_multi_scale_ssim_is_the_product_over_scales():
    """Equation 7 of the paper, with a loop over scales, channels and pixels."""
    x = torch.rand(2, 2, 16, 24, generator=torch.Generator().manual_seed(0))
    y = 0.7 * x + 0.3 * torch.rand(2, 2, 16, 24, generator=torch.Generator().manual_seed(1))
    exponents = (0.2, 0.5, 0.3)
    pyramid = ssim_pyramid(x, y, 3, window=5)
    found = ms_ssim(pyramid, exponents)
    for b in range(2):
        products = []
        for c in range(2):
            p, q, product = x[b, c].double().numpy(), y[b, c].double().numpy(), 1.0
            for scale, exponent in enumerate(exponents):
                whole = pixelwise(paper_ssim, p, q, 5)
                np.testing.assert_allclose(pyramid[scale][0][b, c].numpy(), whole, atol=1e-4)
                term = whole if scale == 2 else pixelwise(paper_contrast_structure, p, q, 5)
                product *= term.mean() ** exponent
                p, q = (v.reshape(v.shape[0] // 2, 2, v.shape[1] // 2, 2).mean((1, 3)) for v in (p, q))
            products.append(product)
        assert float(found[b]) == pytest.approx(np.mean(products), rel=1e-3)


def test_multi_scale_ssim_has_a_slope_where_images_are_opposites():
    x = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    y = (1 - x).requires_grad_()
    (slope,) = torch.autograd.grad(ms_ssim(ssim_pyramid(x, y, 2, 5), (0.5, 0.5)).sum(), y)
    assert torch.isfinite(slope).all()
    assert ms_ssim(ssim_pyramid(x, x, 2, 5), (0.5, 0.5)).item() == pytest.approx(1)
