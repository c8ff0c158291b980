import numpy as np
import pytest
import torch

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors.vae import VAE
from iadbe.errors import BadConfig

QUICK = {"size": 32, "batch": 8, "learning_rate": 2e-3, "latent": 16}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(VAE(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16, side=32)), epochs=60, beta=0.01)


def test_the_loss_is_the_negative_evidence_lower_bound():
    train = images(parts(4, side=32))
    _, losses = trained(train, epochs=1, batch=4, beta=3.0)
    rng = np.random.default_rng(0)
    torch_seed, noise_seed = int(rng.integers(2**63)), int(rng.integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        again = VAE(**QUICK)
    shown = next(train.batches(4, rng)).image
    noise, expected = torch.randn(4, 16, generator=torch.Generator().manual_seed(noise_seed)), 0.0
    for image, e in zip(shown, noise, strict=True):
        with torch.no_grad():
            mean, log_variance = again.encoder(image[None]).flatten().split(16)
            found = again.decoder((mean + log_variance.exp().sqrt() * e)[None, :, None, None])[0]
        divergence = sum(
            float(m**2 + v.exp() - 1 - v) / 2 for m, v in zip(mean, log_variance, strict=True)
        )  # equation 10 of appendix B
        expected += (float((image - found).square().sum()) + 3 * divergence) / 4
    assert losses == [pytest.approx(expected, rel=1e-4)]


def test_it_learns_to_reconstruct(fitted):
    detector, losses = fitted
    assert len(losses) == 120
    assert np.mean(losses[-4:]) < 0.4 * np.mean(losses[:4])
    seen = batch(parts(4, seed=2, side=32)).image
    with torch.no_grad():
        reconstruction = detector._decoded(detector._code(seen)[0])
    mean = seen.mean((2, 3), keepdim=True)
    assert (reconstruction - seen).square().mean() < 0.5 * (mean - seen).square().mean()


def test_the_score_is_the_error_averaged_over_samples_of_the_code(fitted):
    detector, _ = fitted
    seen = batch(parts(2, seed=5, side=32))
    detector.sigma = 0.0
    found = detector.predict(seen)
    detector.sigma = 4.0
    assert detector.noise.shape == (10, 16)
    with torch.no_grad():
        mean, log_variance = detector._code(seen.image)
        expected = torch.zeros(2, 32, 32)
        for e in detector.noise:
            image = detector.decoder((mean + e * log_variance.exp().sqrt())[:, :, None, None])
            for channel in range(3):
                expected += (seen.image[:, channel] - image[:, channel]) ** 2 / 30
    torch.testing.assert_close(found.map, expected)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_without_samples_the_mean_code_counts():
    detector = VAE(**QUICK, samples=0, sigma=0.0)
    seen = batch(parts(2, side=32))
    with torch.no_grad():
        mean, _ = detector._code(seen.image)
        expected = (seen.image - detector._decoded(mean)).square().mean(1)
    torch.testing.assert_close(detector.predict(seen).map, expected)


def test_a_dent_is_found(fitted):
    detector, _ = fitted
    good = detector.predict(batch(parts(8, seed=2, side=32)))
    bad = detector.predict(batch(parts(8, seed=3, side=32, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9


def test_the_map_has_the_size_of_the_image(fitted):
    assert fitted[0].predict(batch(parts(2))).map.shape == (2, 64, 64)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"epochs": 0}, {"batch": 0}, {"samples": -1}, {"beta": -0.1}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        VAE(**{**QUICK, **wrong})


def test_sizes_are_those_of_the_network():
    with pytest.raises(BadConfig, match="size is 32, 64, 128, 256 or 512, not 100"):
        VAE(size=100)
