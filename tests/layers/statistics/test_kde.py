import numpy as np
import torch
from scipy.stats import gaussian_kde

from iadbe.layers.statistics import kde
from iadbe.layers.statistics.kde import KernelDensity


def rows(count, seed=0, dims=6):
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(9).normal(size=(dims, dims))
    return torch.tensor(rng.normal(size=(count, dims)) @ mixing + 5, dtype=torch.float32)


def test_it_is_the_density_of_scipy(monkeypatch):
    """Which uses Scott's factor and the full covariance; in chunks, too."""
    known, new = rows(80), rows(9, seed=1)
    made = KernelDensity()
    made.fit(known, components=6)
    expected = gaussian_kde(known.double().numpy().T).logpdf(new.double().numpy().T)
    scale = float(made.axes.norm(dim=1).log().sum())  # the volume of the unit changes with the scaling
    for chunk in (2**22, 200):
        monkeypatch.setattr(kde, "CHUNK", chunk)
        np.testing.assert_allclose(scale - made.negative_log_density(new).numpy(), expected, rtol=1e-3, atol=1e-3)


def test_only_the_first_components_count():
    known = torch.cat([rows(50), 1e-3 * rows(50, seed=3, dims=2)], 1)
    made = KernelDensity()
    made.fit(known, components=3)
    along = made.axes.T @ torch.ones(3, 1)
    across = torch.zeros(8)
    across[7] = 1e-2
    start = known[:1]
    assert made.axes.shape == (3, 8)
    assert abs(float(made.negative_log_density(start + across) - made.negative_log_density(start))) < 0.1
    assert float(made.negative_log_density(start + 1e4 * along.T)) > float(made.negative_log_density(start)) + 10


def test_far_away_it_is_finite_and_still_falls():
    made = KernelDensity()
    made.fit(rows(30), components=4)
    far = made.negative_log_density(torch.stack([rows(1)[0] + far for far in (1e3, 2e3, 4e3)]))
    assert torch.isfinite(far).all()
    assert (far.diff() > 0).all()


def test_equal_rows_have_a_kernel_of_width_one():
    made = KernelDensity()
    made.fit(torch.ones(4, 3), components=2)
    torch.testing.assert_close(made.negative_log_density(torch.tensor([[1.0, 1.0, 3.0]])), torch.tensor([2.0]))
