import numpy as np
import pytest
import torch

from drawn_images import batch, bottles, dents_shown, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.fre import FRE
from iadbe.errors import BadConfig
from iadbe.layers.statistics.pca import pca


def trained(train, seed=0, **params):
    detector = FRE(**params)
    detector.fit(train, np.random.default_rng(seed))
    return detector


def rows(detector, inputs):
    return detector.level(detector._pooled(batch(inputs))).flatten(1)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), layer=2, pool=1, epochs=100, batch=8)


def test_one_matrix_encodes_and_decodes():
    detector = FRE("resnet10t", weights="none", latent=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        detector._reset(5)
        torch.nn.init.normal_(detector.encoder_bias)
        torch.nn.init.normal_(detector.decoder_bias)
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    w, b, c = (p.detach().numpy() for p in (detector.weight, detector.encoder_bias, detector.decoder_bias))
    expected = np.stack([w.T @ (w @ row + b) + c for row in x.numpy()])
    np.testing.assert_allclose(detector._reconstructed(x).detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_its_error_is_close_to_that_of_pca_and_never_below():
    inputs = parts(12)
    detector = trained(images(inputs), layer=2, latent=4, epochs=1500, batch=12)
    seen = rows(detector, inputs)
    best = float(pca(seen, most=4).residual(seen).square().mean())
    spread = float((seen - seen.mean(0)).square().mean())
    with torch.no_grad():
        reached = float((detector._reconstructed(seen) - seen).square().mean())
    assert best * 0.999 < reached < 1.5 * best < 0.5 * spread


def test_the_score_is_the_error_and_the_map_says_where(fitted):
    dented = parts(8, seed=3, defective=True)
    prediction = fitted.predict(batch(dented))
    with torch.no_grad():
        seen = rows(fitted, dented)
        error = (fitted._reconstructed(seen) - seen).square().sum(1)
    torch.testing.assert_close(prediction.score, error)
    assert prediction.map.shape == (8, 64, 64)
    assert dents_shown(dented, prediction.map, within=64 / 4) >= 7


def test_a_dent_is_found(fitted):
    good, bad = fitted.predict(batch(parts(8, seed=2))), fitted.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.95


def test_features_are_rescaled_to_one_root_mean_square(fitted):
    seen = rows(fitted, parts(16))
    assert float(seen.square().mean().sqrt()) == pytest.approx(0.1, rel=1e-3)
    plain = trained(images(parts(4)), backbone="resnet10t", weights="none", epochs=1, rescale=False)
    assert float(plain.level.factor) == 1


@pytest.mark.parametrize("wrong", [{"pool": 0}, {"latent": 0}, {"epochs": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        FRE("resnet10t", weights="none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    """Sixty epochs at 128 pixels, of 220."""
    train, test = bottles(View(128))
    detector = trained(train, epochs=60)
    assert image_auroc(detector, test) > 0.95
