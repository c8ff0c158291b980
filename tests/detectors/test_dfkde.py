import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors import dfkde
from iadbe.detectors.dfkde import DFKDE
from iadbe.errors import BadConfig
from iadbe.layers.statistics.kde import log_density


def fitted(count=24, **params):
    detector = DFKDE(**{"weights": "none", **params})
    detector.fit(images(parts(count)), np.random.default_rng(0))
    return detector


@pytest.mark.parametrize("components", [3, 16])
def test_the_density_is_scipys(components):
    detector = fitted(components=components)
    assert detector.density.points.shape == (24, components)
    reference = gaussian_kde(detector.density.points.double().numpy().T)  # Scott's factor is its default
    new = batch(parts(6, seed=1))
    place = (detector._pooled(new) - detector.density.mean) @ detector.density.axes.T
    np.testing.assert_allclose(detector.predict(new).score, -reference.logpdf(place.double().numpy().T), rtol=2e-3)


def test_log_density_is_the_log_of_a_mean_of_gaussians():
    rng = np.random.default_rng(0)
    points, place, deviation = rng.normal(size=(50, 2)), rng.normal(size=(10, 2)), np.array([0.7, 0.2])
    difference = (place[:, None] - points) / deviation
    kernels = np.exp(-(difference**2).sum(2) / 2).mean(1) / (2 * np.pi * deviation.prod())
    found = log_density(*(torch.from_numpy(a) for a in (place, points, deviation)))
    np.testing.assert_allclose(found, np.log(kernels), rtol=1e-10)


def test_far_away_scores_still_differ():
    """The density itself underflows to 0 there."""
    points, deviation = torch.zeros(5, 3), torch.full((3,), 0.1)
    far = torch.tensor([10.0, 100.0, 1e4, 1e6])[:, None].expand(4, 3)
    score = -log_density(far, points, deviation)
    assert torch.isfinite(score).all()
    assert (score.diff() > 0).all()


def test_the_longest_training_vector_has_length_one():
    detector = fitted()
    assert float(detector.density.points.norm(dim=1).max()) == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize(("count", "dims"), [(40, 16), (8, 7), (2, 1), (1, 0)])
def test_few_images_have_fewer_components(count, dims):
    detector = fitted(count)
    assert detector.density.points.shape == (count, dims)
    prediction = detector.predict(batch(parts(3, seed=1)))
    assert prediction.map is None
    assert torch.isfinite(prediction.score).all()
    assert len(prediction.score.unique()) == 3


def test_a_single_training_image_has_the_lowest_score():
    detector = fitted(1)
    score = detector.predict(batch(parts(1) + parts(1, seed=2) + parts(1, defective=True))).score
    assert score[0] == pytest.approx(0, abs=1e-6)
    assert score[0] < score[1] < score[2]


def test_of_too_many_images_a_random_subset_is_used(monkeypatch):
    monkeypatch.setattr(dfkde, "MAX_POINTS", 10)
    assert fitted(24).density.points.shape[0] == 10
    assert torch.equal(fitted(24).density.points, fitted(24).density.points)


def test_dents_are_less_dense_than_good_parts():
    detector = DFKDE()
    detector.fit(images(parts(40, side=128)), np.random.default_rng(0))
    good = detector.predict(batch(parts(10, seed=2, side=128))).score
    bad = detector.predict(batch(parts(10, seed=3, side=128, defective=True))).score
    assert (bad[:, None] > good).float().mean() > 0.9


def test_no_components_are_refused():
    with pytest.raises(BadConfig, match="components is a number of dimensions"):
        DFKDE(weights="none", components=0)


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(256))
    detector = DFKDE()
    detector.fit(train, np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.95
