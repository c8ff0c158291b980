import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal

from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.dfm import DFM
from iadbe.errors import BadConfig


def fitted(count=12, **params):
    detector = DFM(**{"weights": "none", **params})
    detector.fit(images(parts(count)), np.random.default_rng(0))
    return detector


def features(detector, shown):
    return detector._pooled(shown).flatten(1).double().numpy()


def test_the_score_is_the_reconstruction_error_by_svd():
    detector = fitted(variance=0.9)
    known, new = features(detector, batch(parts(12))), features(detector, batch(parts(3, seed=1)))
    mean = known.mean(0)
    _, singular, axes = np.linalg.svd(known - mean, full_matrices=False)
    kept = int(np.searchsorted(np.cumsum(singular**2) / np.sum(singular**2), 0.9)) + 1
    assert len(detector.axes) == kept < 11
    reconstruction = (new - mean) @ axes[:kept].T @ axes[:kept] + mean
    expected = ((new - reconstruction) ** 2).sum(1)
    np.testing.assert_allclose(detector.predict(batch(parts(3, seed=1))).score, expected, rtol=1e-3)


def test_training_images_lie_in_the_full_subspace():
    detector = fitted(variance=1.0)
    known, new = (detector.predict(batch(parts(12, seed=s))).score for s in (0, 1))
    assert known.max() < 1e-4 * new.min()


def test_the_likelihood_is_that_of_a_gaussian_in_the_subspace():
    detector = fitted(score="nll", variance=0.9)
    known, new = features(detector, batch(parts(12))), features(detector, batch(parts(3, seed=1)))
    axes = detector.axes.double().numpy()
    inside = (known - known.mean(0)) @ axes.T
    gaussian = multivariate_normal(np.zeros(len(axes)), np.cov(inside, rowvar=False))
    prediction = detector.predict(batch(parts(3, seed=1)))
    np.testing.assert_allclose(prediction.score, -gaussian.logpdf((new - known.mean(0)) @ axes.T), rtol=1e-3)
    assert prediction.map is None


def test_a_dent_is_found_and_shown_where_it_is():
    detector = DFM()
    detector.fit(images(parts(20, side=128)), np.random.default_rng(0))
    dented = parts(4, seed=3, side=128, defective=True)
    good, bad = detector.predict(batch(parts(10, seed=2, side=128))), detector.predict(batch(dented))
    assert bad.score.min() > good.score.max()
    for pixels, map_ in zip(dented, bad.map, strict=True):
        centre = np.argwhere(pixels.max(2) < 40).mean(0)  # of the dent
        hottest = np.unravel_index(int(map_.argmax()), map_.shape)
        assert np.hypot(*(centre - hottest)) < 32


def test_the_map_adds_up_to_the_score():
    detector = fitted()
    prediction = detector.predict(batch(parts(2, seed=1)))
    squares = 64**2 / (2 * 2)  # pixels per square of the 2 x 2 grid
    np.testing.assert_allclose(prediction.map.sum((1, 2)) / squares, prediction.score, rtol=1e-3)


@pytest.mark.parametrize(("size", "pool", "grid"), [(256, 4, 4), (224, 4, 4), (224, 2, 7), (224, 1, 14), (64, 9, 1)])
def test_the_pools_cover_the_whole_grid(size, pool, grid):
    detector = DFM(weights="none", pool=pool)
    found = detector._pooled(batch(parts(1, side=64), View(size)))
    assert found.shape == (1, 112, grid, grid)
    whole = detector.backbone(batch(parts(1, side=64), View(size)))[0]
    if whole.shape[-1] % grid == 0:
        torch.testing.assert_close(found.mean((2, 3)), whole.mean((2, 3)))


def test_one_image_is_enough_for_fre_but_not_for_nll():
    assert torch.isfinite(fitted(1).predict(batch(parts(2, seed=1))).score).all()
    with pytest.raises(BadConfig, match="at least two different training images"):
        fitted(1, score="nll")


@pytest.mark.parametrize("wrong", [{"variance": 0}, {"variance": 1.5}, {"pool": 0}, {"score": "kde"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=f"{next(iter(wrong))} is"):
        DFM(weights="none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(256))
    detector = DFM()
    detector.fit(train, np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.99
