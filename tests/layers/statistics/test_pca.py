import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from iadbe.layers.statistics import pca as module
from iadbe.layers.statistics.pca import pca


def rows(count, width, seed=0):
    """Correlated rows far from the origin."""
    rng = np.random.default_rng(seed)
    mixed = rng.normal(size=(count, width)) @ np.diag(np.geomspace(3, 0.1, width)) @ rng.normal(size=(width, width))
    return torch.from_numpy(mixed + 50).float()


@pytest.mark.parametrize(("count", "width"), [(12, 300), (300, 12), (20, 20)])
def test_it_is_the_singular_value_decomposition_of_numpy(count, width, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 7)  # several blocks, the last one shorter
    data = rows(count, width)
    found = pca(data)
    x = data.double().numpy()
    _, singular, axes = np.linalg.svd(x - x.mean(0), full_matrices=False)
    rank = min(count - 1, width)
    assert found.axes.shape == (rank, width)
    np.testing.assert_allclose(found.mean.numpy(), x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.variance.numpy(), singular[:rank] ** 2 / (count - 1), rtol=1e-4)
    np.testing.assert_allclose(np.abs((found.axes.numpy() * axes[:rank]).sum(1)), 1, atol=1e-4)  # up to the sign
    np.testing.assert_allclose((found.axes @ found.axes.T).numpy(), np.eye(rank), atol=1e-5)


@pytest.mark.parametrize("share", [0.3, 0.8, 0.97, 0.9999])
@pytest.mark.parametrize(("count", "width"), [(40, 100), (100, 40)])
def test_it_keeps_the_fewest_axes_that_hold_the_share(share, count, width):
    data = rows(count, width, seed=1)
    everything = pca(data).variance
    found = pca(data, share)
    kept = len(found.axes)
    assert everything[:kept].sum() >= share * everything.sum() > everything[: kept - 1].sum()
    assert kept == PCA(n_components=share, svd_solver="full").fit(data.double().numpy()).n_components_


def test_at_most_the_requested_number_of_axes():
    assert pca(rows(30, 50), most=16).axes.shape == (16, 50)
    assert pca(rows(5, 50), most=16).axes.shape == (4, 50)


def test_projection_and_residual_are_the_two_parts_of_a_row():
    data = rows(30, 80)
    found = pca(data, most=10)
    new = rows(6, 80, seed=2)
    inside = found.project(new) @ found.axes + found.mean
    torch.testing.assert_close(inside + found.residual(new), new, rtol=1e-5, atol=1e-3)
    assert (found.residual(new) @ found.axes.T).abs().max() < 1e-3


def test_what_lies_in_the_span_leaves_no_residual():
    data = rows(10, 200)
    found = pca(data)
    mixture = torch.rand(4, 10).softmax(1) @ data  # weights that sum to 1 stay in the affine span
    assert found.residual(mixture).abs().max() < 1e-2 < found.residual(rows(4, 200, 3)).abs().max()


@pytest.mark.parametrize("count", [1, 6])
def test_equal_rows_have_no_axis(count):
    data = rows(1, 50).repeat(count, 1)
    found = pca(data)
    assert found.axes.shape == (0, 50)
    assert found.variance.shape == (0,)
    torch.testing.assert_close(found.residual(data + 1), torch.ones(count, 50))
    assert found.project(data).shape == (count, 0)


def test_a_second_fit_gives_the_same():
    assert all(torch.equal(a, b) for a, b in zip(pca(rows(9, 70)), pca(rows(9, 70)), strict=True))


def test_wide_rows_need_no_matrix_of_their_width(monkeypatch):
    sizes = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: sizes.append(tuple(m.shape)) or eigh(m))
    pca(torch.rand(5, 100_000, generator=torch.Generator().manual_seed(0)))
    assert sizes == [(5, 5)]
