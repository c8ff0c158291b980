import pytest
import torch
from sklearn.covariance import LedoitWolf

from iadbe.layers.statistics.shrinkage import SMALLEST, ShrunkGaussian, ledoit_wolf


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
