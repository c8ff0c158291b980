import pytest
import torch
from sklearn.covariance import LedoitWolf

from iadbe.layers.statistics.shrinkage import SMALLEST, ShrunkGaussian, gaussian_draws, ledoit_wolf


def rows(count, dim, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
    return torch.randn(count, dim, generator=generator, dtype=torch.float64) @ mixing + 3


def literal(x):
    """The share of the identity by the definitions in the paper, row after row."""
    count, dim = x.shape
    centred = x - x.mean(0)
    sample = sum(torch.outer(r, r) for r in centred) / count
    mu = float(sample.trace()) / dim
    d2 = float((sample - mu * torch.eye(dim)).square().sum()) / dim
    b2 = sum(float((torch.outer(r, r) - sample).square().sum()) / dim for r in centred) / count**2
    return min(b2, d2) / d2


@pytest.mark.parametrize(("count", "dim"), [(30, 50), (200, 10), (5, 40)])
def test_the_share_and_covariance_are_those_of_the_paper(count, dim):
    x = rows(count, dim)
    covariance, share = ledoit_wolf(x)
    assert share == pytest.approx(literal(x), rel=1e-9)
    reference = LedoitWolf().fit(x.numpy())
    assert share == pytest.approx(reference.shrinkage_, rel=1e-9)
    torch.testing.assert_close(covariance, torch.from_numpy(reference.covariance_))


def test_distance_and_gradient_are_those_of_the_inverse():
    x, queries = rows(40, 12), rows(6, 12, seed=1)
    gaussian = ShrunkGaussian()
    gaussian.fit(x)
    covariance = ledoit_wolf(x)[0]
    covariance += SMALLEST * covariance.diagonal().mean() * torch.eye(12)
    centred = (queries - x.mean(0)).requires_grad_()
    expected = torch.einsum("nd,de,ne->n", centred, torch.linalg.inv(covariance), centred).sqrt()
    torch.testing.assert_close(gaussian.distance(queries), expected.detach())
    torch.testing.assert_close(gaussian.gradient(queries), torch.autograd.grad(expected.sum(), centred)[0])
    assert float(gaussian.gradient(x.mean(0, keepdim=True)).abs().max()) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize("count", [1, 2])
def test_few_or_equal_rows_have_finite_distances(count):
    gaussian = ShrunkGaussian()
    for x in (rows(count, 20).float(), torch.ones(3, 20)):
        gaussian.fit(x)
        assert torch.isfinite(gaussian.distance(torch.zeros(2, 20))).all()
        assert float(gaussian.distance(torch.zeros(2, 20)).min()) > 0


def test_draws_have_the_mean_and_the_covariance():
    mean, mixing = rows(1, 4)[0], rows(4, 2).T
    covariance = mixing.T @ mixing  # of rank 2
    drawn = gaussian_draws(mean, covariance, 20000, torch.Generator().manual_seed(0))
    spread = float(covariance.diagonal().max())
    torch.testing.assert_close(drawn.mean(0), mean, rtol=0, atol=0.03 * spread**0.5)
    torch.testing.assert_close(drawn.T.cov(), covariance, rtol=0, atol=0.05 * spread)
    assert torch.equal(drawn, gaussian_draws(mean, covariance, 20000, torch.Generator().manual_seed(0)))


def test_draws_without_a_covariance_are_the_mean():
    drawn = gaussian_draws(torch.arange(3.0), torch.zeros(3, 3), 2, torch.Generator())
    assert torch.equal(drawn, torch.arange(3.0).expand(2, 3))
    assert drawn.dtype == torch.float32
