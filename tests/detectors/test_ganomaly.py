import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors import ganomaly
from iadbe.detectors.ganomaly import GANomaly, discriminator_loss
from iadbe.errors import BadConfig

QUICK = {"size": 16, "width": 8, "latent": 8, "batch": 8, "learning_rate": 2e-3}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(GANomaly(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16, side=16)), steps=200)


def test_one_step_is_the_authors():
    """Both losses and both steps, written out: the discriminator does not see the generator's new weights."""
    train = images(parts(4, side=16))
    detector, losses = trained(train, steps=1, batch=4)
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        again = GANomaly(**QUICK).train()
    rng.integers(2**63)
    x = next(train.batches(4, rng)).image * 2 - 1
    g, d = again.generator, again.discriminator
    z = g.encoder(x)
    fake = g.decoder(z)
    z2 = g.second(fake)
    adversarial = ((d.features(x) - d.features(fake)) ** 2).mean()
    loss = adversarial + 50 * (x - fake).abs().mean() + ((z - z2) ** 2).mean()
    real_p, fake_p = (torch.sigmoid(d.last(d.features(i))) for i in (x, fake.detach()))
    loss_d = (F.binary_cross_entropy(real_p, torch.ones(4, 1, 1, 1)) + F.binary_cross_entropy(fake_p, 0 * fake_p)) / 2
    assert losses == [pytest.approx(loss.item(), rel=1e-4)]
    for network, of in ((g, loss), (d, loss_d)):
        gradients = torch.autograd.grad(of, list(network.parameters()), retain_graph=True)
        found = detector.generator if network is g else detector.discriminator
        for before, gradient, after in zip(network.parameters(), gradients, found.parameters(), strict=True):
            clear = gradient.abs() > 1e-4 * gradient.abs().max()  # Adam's first step is the sign, where it is not noise
            moved = (after - before)[clear]
            torch.testing.assert_close(moved, -2e-3 * gradient[clear].sign(), rtol=0, atol=1e-4)


def test_the_discriminators_loss_is_the_cross_entropy():
    real, fake = torch.tensor([0.3, -2.0]), torch.tensor([1.0, 4.0])
    expected = -(real.sigmoid().log().mean() + (1 - fake.sigmoid()).log().mean()) / 2
    torch.testing.assert_close(discriminator_loss(real, fake), expected)


def test_training_lowers_the_loss_and_reconstructs(fitted):
    detector, losses = fitted
    assert len(losses) == 200
    assert np.mean(losses[-8:]) < 0.4 * np.mean(losses[:4])
    seen = batch(parts(4, seed=2, side=16)).image * 2 - 1
    with torch.no_grad():
        fake = detector.generator(seen)[0]
    mean = seen.mean((2, 3), keepdim=True)
    assert (fake - seen).abs().mean() < 0.5 * (mean - seen).abs().mean()


def test_the_score_is_the_distance_of_the_codes_and_the_map_that_of_the_images(fitted):
    detector = copy.deepcopy(fitted[0])
    detector.sigma = 0.0
    seen = batch(parts(3, seed=2, side=16))
    found = detector.predict(seen)
    for i in range(3):
        x = seen.image[i : i + 1] * 2 - 1
        with torch.no_grad():
            z = detector.generator.encoder(x)
            fake = detector.generator.decoder(z)
            z2 = detector.generator.second(fake)
        assert float(found.score[i]) == pytest.approx(sum(abs(float(a - b)) for a, b in zip(z[0], z2[0], strict=True)))
        torch.testing.assert_close(found.map[i], ((x - fake)[0].abs().sum(0) / 3), rtol=1e-4, atol=1e-5)


def test_a_dent_is_found_in_the_map(fitted):
    detector = fitted[0]
    good = detector.predict(batch(parts(8, seed=2, side=16))).map.amax((1, 2))
    bad = detector.predict(batch(parts(8, seed=3, side=16, defective=True))).map.amax((1, 2))
    assert (bad[:, None] > good).float().mean() > 0.8


def test_a_discriminator_that_is_too_good_starts_again(monkeypatch):
    made = []
    monkeypatch.setattr(ganomaly, "initialise", lambda network, source=None: made.append((network, source)))
    monkeypatch.setattr(ganomaly, "TOO_LOW", 1e9)
    detector = GANomaly(**QUICK, steps=3)
    made.clear()
    detector.update(images(parts(4, side=16)), np.random.default_rng(0))
    assert [network for network, _ in made] == [detector.discriminator] * 3
    assert all(isinstance(source, torch.Generator) for _, source in made)


def test_the_map_has_the_size_of_the_image(fitted):
    assert fitted[0].predict(batch(parts(2))).map.shape == (2, 64, 64)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"steps": 0}, {"width": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        GANomaly(**{**QUICK, **wrong})


def test_negative_weights_of_losses_are_refused():
    with pytest.raises(BadConfig, match="must not be negative"):
        GANomaly(**QUICK, contextual=-1.0)
