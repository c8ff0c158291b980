import numpy as np
import pytest
import torch

from iadbe import progress
from iadbe.errors import BadConfig
from iadbe.layers.statistics.gaussian import PositionGaussians, reference_distance


def drawn(images=30, channels=(7, 4), seed=0, offset=0.0):
    """Layers on a grid of 4 x 6 and, from the second on, of half its size; correlated, with a mean far from zero."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for number, c in enumerate(channels):
        grid = (4, 6) if number == 0 else (2, 3)
        mix = torch.randn(c, c, generator=torch.Generator().manual_seed(number))
        x = torch.randn(images, c, *grid, generator=generator)
        layers.append(torch.einsum("dc,bchw->bdhw", mix, x) + offset)
    return layers


def stacked(layers):
    """Repeat the coarse layers: (N, C, P) in float64, independently of the code under test."""
    full = [layers[0], *(x.repeat_interleave(2, 2).repeat_interleave(2, 3) for x in layers[1:])]
    return torch.cat(full, 1).flatten(2).double().numpy()


def fitted(layers, sizes=(), **options):
    gaussians = PositionGaussians(**options)
    for part in zip(*(x.split(list(sizes) or len(x)) for x in layers), strict=True):
        gaussians.add(part)
    gaussians.factorise()
    return gaussians


def covariance(gaussians):
    """Unpack the factors and multiply them: L L^T - regularisation * I, (P, C, C)."""
    packed = gaussians.factor.double().numpy()
    half, channels = packed.shape[2], len(gaussians.mean)
    full = np.zeros((len(packed), 2 * half, 2 * half))
    full[:, :half, :half] = np.tril(packed[:, 1 : half + 1])
    full[:, half:, half:] = np.tril(packed[:, :half].transpose(0, 2, 1))
    full[:, half:, :half] = packed[:, half + 1 :]
    product = full @ full.transpose(0, 2, 1) - gaussians.regularisation * np.eye(2 * half)
    return product[:, :channels, :channels]


def mahalanobis(train, shown, regularisation=0.01, ddof=1):
    """Distances (B, P) of shown (B, C, P) from the Gaussians of train (N, C, P), by the reference."""
    pairs = ((torch.from_numpy(train[..., p]), torch.from_numpy(shown[..., p])) for p in range(shown.shape[2]))
    return torch.stack([reference_distance(*pair, regularisation, bool(ddof)) for pair in pairs], 1).numpy()


@pytest.mark.parametrize("ddof", [0, 1])
def test_the_reference_is_that_of_numpy(ddof):
    train, shown = (stacked(drawn(n, seed=n))[..., 5] for n in (30, 4))
    inverse = np.linalg.inv(np.cov(train.T, ddof=ddof) + 0.3 * np.eye(11))
    expected = [np.sqrt(d @ inverse @ d) for d in shown - train.mean(0)]
    found = reference_distance(torch.from_numpy(train), torch.from_numpy(shown), 0.3, bool(ddof))
    np.testing.assert_allclose(found, expected, rtol=1e-9)


@pytest.mark.parametrize("channels", [(8,), (7,), (7, 4), (1,), (0, 5)])
@pytest.mark.parametrize("unbiased", [True, False])
def test_covariance_and_distance_are_those_of_numpy(channels, unbiased):
    layers, shown = drawn(channels=channels), drawn(5, channels, seed=1)
    gaussians = fitted(layers, sizes=[16, 13, 1], unbiased=unbiased)
    train = stacked(layers)
    for p, found in enumerate(covariance(gaussians)):
        expected = np.atleast_2d(np.cov(train[..., p].T, ddof=int(unbiased)))
        assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(gaussians.mean.flatten(1), train.mean(0), atol=1e-5)
    if sum(channels) > 1:
        expected = mahalanobis(train, stacked(shown), ddof=int(unbiased))
        np.testing.assert_allclose(gaussians.distance(shown).flatten(1), expected, rtol=1e-4)


def test_a_mean_far_from_zero_does_not_reduce_the_accuracy():
    """Raw moments in float32 would be wrong in the first digit here: their rounding is 1e-7 of 1000 squared."""
    layers = drawn(200, offset=1000.0)
    gaussians = fitted(layers, sizes=[70, 70, 60])
    train = stacked(layers)
    for p, found in enumerate(covariance(gaussians)):
        expected = np.cov(train[..., p].T)
        assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()
    np.testing.assert_allclose(gaussians.distance(layers).flatten(1), mahalanobis(train, train), rtol=1e-3)


def test_batches_and_passes_do_not_matter(monkeypatch):
    layers = drawn(60)
    whole = fitted(layers).distance(layers)
    monkeypatch.setattr("iadbe.layers.statistics.gaussian.PENDING", 7)
    monkeypatch.setattr("iadbe.layers.statistics.gaussian.CHUNK", 1)
    torch.testing.assert_close(fitted(layers, sizes=[5] * 12).distance(layers), whole, rtol=1e-4, atol=1e-5)


def test_memory_is_one_triangle_and_does_not_grow_with_images():
    gaussians = PositionGaussians()
    for seed in range(5):
        gaussians.add(drawn(50, (8, 4), seed))
        pending = sum(len(layers[0]) for layers in gaussians._pending)
        assert pending < 64
    gaussians.factorise()
    assert gaussians.factor.numel() == 24 * 12 * 13 / 2
    assert int(gaussians.count) == 250
    assert gaussians._pending == []


def test_one_image_leaves_the_regularisation_alone():
    layers = drawn(1)
    gaussians = fitted(layers)
    assert float(gaussians.distance(layers).abs().max()) == 0
    further = [x + 0.5 for x in layers]
    expected = torch.full((1, 4, 6), 0.5 * 11**0.5 / 0.1)
    torch.testing.assert_close(gaussians.distance(further), expected)


@pytest.mark.parametrize("sizes", [[20, 10], [1, 1, 28], [15, 1, 14]])
@pytest.mark.parametrize("unbiased", [True, False])
def test_merged_gaussians_are_those_of_all_images(sizes, unbiased):
    layers, shown = drawn(), drawn(5, seed=1)
    together = fitted(layers, unbiased=unbiased)
    clients = [fitted(part, unbiased=unbiased) for part in zip(*(x.split(sizes) for x in layers), strict=True)]
    clients[0].merge(clients)
    assert int(clients[0].count) == 30
    torch.testing.assert_close(clients[0].mean, together.mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(clients[0].distance(shown), together.distance(shown), rtol=2e-4, atol=1e-5)


def test_it_works_where_nothing_may_be_tracked_and_leaves_the_threads_as_they_were():
    layers = drawn()
    expected = fitted(layers).distance(layers)
    threads = torch.get_num_threads()
    with torch.inference_mode():
        torch.testing.assert_close(fitted(layers).distance(layers), expected)
    assert torch.get_num_threads() == threads


def test_factorising_says_how_far_it_is(monkeypatch):
    monkeypatch.setattr("iadbe.layers.statistics.gaussian.CHUNK", 1)
    seen = []
    with progress.listening(seen.append):
        fitted(drawn())
    assert [(r.phase, r.done, r.total) for r in seen] == [("factorise", n + 1, 24) for n in range(24)]


def test_mistakes_raise_clear_errors():
    with pytest.raises(BadConfig, match="at least one"):
        PositionGaussians().factorise()
    with pytest.raises(BadConfig, match="above 0"):
        PositionGaussians(regularisation=0.0)
    gaussians = fitted(drawn())
    with pytest.raises(BadConfig, match="11x4x6, not 11x2x2"):
        gaussians.distance([x[..., :2, :2] for x in drawn()])
    with pytest.raises(BadConfig, match="one view"):
        gaussians.merge([gaussians, fitted(drawn(channels=(3, 2)))])
    line = torch.randn(20, 1, 4, 6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 12)[:, None, None]
    with pytest.raises(BadConfig, match="singular"):
        fitted([1e5 * line])


class TestCounts:
    """A position's Gaussian is of the images in which it counts."""

    def drawn(self):
        source = torch.Generator().manual_seed(0)
        features = torch.randn(20, 3, 2, 2, generator=source)
        counts = torch.rand(20, 2, 2, generator=source) < 0.6
        counts[:, 1, 1] = False
        return features, counts

    def added(self, features, counts, size):
        gaussians = PositionGaussians()
        for start in range(0, len(features), size):
            own = None if counts is None else counts[start : start + size]
            gaussians.add([features[start : start + size]], own)
            gaussians._accumulate()
        return gaussians

    @pytest.mark.parametrize("size", [20, 7])
    def test_distances_are_those_of_the_images_that_count(self, size):
        features, counts = self.drawn()
        gaussians = self.added(features, counts, size)
        gaussians.factorise()
        found = gaussians.distance([features])
        for y, x in ((0, 0), (0, 1), (1, 0)):
            expected = reference_distance(features[counts[:, y, x], :, y, x], features[:, :, y, x])
            torch.testing.assert_close(found[:, y, x].double(), expected, rtol=1e-4, atol=1e-4)
        assert gaussians.count.tolist() == counts.sum(0).flatten().tolist()

    def test_all_that_count_are_as_if_nothing_was_said(self):
        features, _ = self.drawn()
        plain, said = self.added(features, None, 20), self.added(features, torch.ones(20, 2, 2, dtype=torch.bool), 20)
        plain.factorise()
        said.factorise()
        torch.testing.assert_close(said.distance([features]), plain.distance([features]), rtol=1e-5, atol=1e-5)

    def test_merged_they_are_those_of_all_images(self):
        features, counts = self.drawn()
        whole = self.added(features, counts, 20)
        whole.factorise()
        parts = [self.added(features[:8], counts[:8], 8), self.added(features[8:], counts[8:], 12)]
        for part in parts:
            part.factorise()
        merged = PositionGaussians()
        merged.merge(parts)
        assert torch.equal(merged.count, whole.count)
        shown = merged.distance([features])[:, [0, 0, 1], [0, 1, 0]]
        torch.testing.assert_close(shown, whole.distance([features])[:, [0, 0, 1], [0, 1, 0]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("channels", [(7, 4), (7, 5)], ids=["odd", "even"])
def test_the_form_for_export_measures_the_same_distances(channels):
    layers = drawn(channels=channels)
    gaussians, shown = fitted(layers), drawn(5, channels, seed=1, offset=0.5)
    exported = gaussians.for_export()
    torch.testing.assert_close(exported.distance(shown), gaussians.distance(shown), rtol=1e-4, atol=1e-4)
    assert sum(b.numel() for b in exported.buffers()) == gaussians.mean.numel() + gaussians.factor.numel()
