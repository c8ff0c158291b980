import numpy as np
import pytest
import torch

from iadbe.layers.features.similarity import cross_correlation, ssim

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
