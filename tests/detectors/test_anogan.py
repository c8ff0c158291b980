import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import anogan
from iadbe.detectors.anogan import AnoGAN
from iadbe.errors import BadConfig

QUICK = {"size": 16, "width": 8, "latent": 8, "batch": 8, "learning_rate": 2e-3, "search_steps": 60}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(AnoGAN(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def searching():
    return trained(images(parts(16, side=16)), steps=200)[0]


@pytest.fixture(scope="module")
def encoding():
    return trained(images(parts(16, side=16)), steps=200, encoder=True, learning_rate=8e-3)


def first_draws(train, count, **params):
    """Return an untrained detector as fit makes it, its first batch in [-1, 1] and the generator of its noise."""
    rng = np.random.default_rng(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**63)))
        detector = AnoGAN(**{**QUICK, **params}).train()
    source = torch.Generator().manual_seed(int(rng.integers(2**63)))
    return detector, next(train.batches(count, rng)).image * 2 - 1, source


def test_one_step_of_the_gan_is_that_of_a_dcgan():
    """Non-saturating losses on probabilities; the generator sees the discriminator's new weights."""
    train = images(parts(4, side=16))
    detector, losses = trained(train, steps=1, batch=4)
    again, x, source = first_draws(train, 4)
    z = torch.rand(4, 8, generator=source) * 2 - 1
    d, fake = again.discriminator, again.generator(z)
    real_p, fake_p = d(x)[0].sigmoid(), d(fake.detach())[0].sigmoid()
    loss_d = F.binary_cross_entropy(real_p, torch.ones(4)) + F.binary_cross_entropy(fake_p, torch.zeros(4))
    gradients = torch.autograd.grad(loss_d, list(d.parameters()))
    pairs = zip(d.parameters(), gradients, detector.discriminator.parameters(), strict=True)
    for before, gradient, after in pairs:
        clear = gradient.abs() > 1e-4 * gradient.abs().max()  # Adam's first step is the sign, where it is not noise
        moved = (after - before)[clear]
        torch.testing.assert_close(moved, -2e-3 * gradient[clear].sign(), rtol=0, atol=1e-4)
        before.data.copy_(after.data)
    assert losses == [pytest.approx(-d(fake)[0].sigmoid().log().mean().item(), rel=1e-4)]


def test_the_critics_loss_has_the_papers_gradient_penalty():
    """Against slopes of each image by itself, in a loop."""
    detector, x, source = first_draws(images(parts(3, side=16)), 3, encoder=True)
    fake, d = torch.rand(3, 3, 16, 16, generator=source) * 2 - 1, detector.discriminator
    found = detector._critic_loss(x, fake, torch.Generator().manual_seed(1))
    share, penalty = torch.rand(3, 1, 1, 1, generator=torch.Generator().manual_seed(1)), 0.0
    for i in range(3):
        between = (share[i] * fake[i] + (1 - share[i]) * x[i])[None].requires_grad_()
        (slope,) = torch.autograd.grad(d(between)[0].squeeze(), between)
        penalty += (float(slope.square().sum()) ** 0.5 - 1) ** 2 / 3
    expected = d(fake)[0].mean().item() - d(x)[0].mean().item() + 10 * penalty
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_the_generator_of_a_wgan_takes_one_step_for_five_of_its_critic(monkeypatch):
    taken = []
    detector = AnoGAN(**QUICK, encoder=True, steps=12)
    networks = {"G": detector.generator, "D": detector.discriminator, "E": detector.encoder}

    def record(optimizer, loss, shown=True):
        mine = {id(p) for group in optimizer.param_groups for p in group["params"]}
        taken.extend(n for n, network in networks.items() if id(next(network.parameters())) in mine)

    monkeypatch.setattr(anogan, "step", record)
    detector._train_wgan(images(parts(8, side=16)), np.random.default_rng(0))
    assert "".join(taken) == "DDDDDGDDDDDGDD"
    taken.clear()
    detector.steps = 2
    detector._train_encoder(images(parts(8, side=16)), np.random.default_rng(0))
    assert taken == ["E", "E"]
    assert all(p.requires_grad for p in detector.parameters())


def test_a_counter_goes_on_from_its_state():
    first, second = anogan._Counter(), anogan._Counter()
    first.value = 7
    second.load_state_dict(first.state_dict())
    assert second.value == 7


def test_the_scores_are_the_papers(searching, encoding):
    """Written out: sums with λ for the search, means with κ for the encoder."""
    for detector in (searching, encoding[0]):
        shown = batch(parts(2, seed=2, side=16))
        found = detector.predict(shown)
        x = shown.image * 2 - 1
        with torch.no_grad():
            if detector.with_encoder:
                fake = detector.generator(detector.encoder(x))
            else:
                fake = torch.cat([detector.generator(detector._search(one)) for one in x.split(1)])
            f, g = (detector.discriminator.features(i).flatten(1) for i in (x, fake))
        for i in range(2):
            if detector.with_encoder:
                expected = ((x[i] - fake[i]) ** 2).mean() + ((f[i] - g[i]) ** 2).mean()
            else:
                expected = 0.9 * (x[i] - fake[i]).abs().sum() + 0.1 * (f[i] - g[i]).abs().sum()
            assert float(found.score[i]) == pytest.approx(float(expected), rel=1e-4)
        detector = copy.copy(detector)
        detector.sigma = 0.0
        torch.testing.assert_close(detector.predict(shown).map, (x - fake).abs().mean(1), rtol=1e-3, atol=1e-4)


def test_the_search_comes_nearer_with_each_stage_and_with_training(searching):
    shown = batch(parts(4, seed=2, side=16))
    x, scores = shown.image * 2 - 1, []
    for steps in (0, 10, 100):
        detector = copy.copy(searching)
        detector.search_steps = steps
        with torch.no_grad():
            scores.append(float(detector._search_loss(x, detector.generator(detector._found(x))).mean()))
    assert scores[2] < scores[1] < scores[0]
    untrained = AnoGAN(**QUICK)
    assert searching.predict(shown).map.mean() < 0.7 * untrained.predict(shown).map.mean()


def test_a_score_is_the_same_to_the_bit_in_any_batch(searching):
    shown = batch(parts(3, seed=2, side=16))
    together = searching._found(shown.image * 2 - 1)
    alone = torch.cat([searching._found(one * 2 - 1) for one in shown.image.split(1)])
    assert torch.equal(together, alone)
    torch.testing.assert_close(searching.start.abs().amax() <= 1, torch.tensor(True))


def test_training_the_encoder_lowers_its_loss(encoding):
    _, losses = encoding
    assert len(losses) == 400
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[200:204])


def test_the_critic_tells_images_from_generated_ones_at_first(encoding):
    """The Wasserstein estimate grows, then the generator follows: the critic's loss ends nearer to 0 than its least."""
    losses = encoding[1][:200]
    assert min(losses) < 0
    assert np.mean(losses[-10:]) > min(losses)


@pytest.mark.parametrize("which", ["searching", "encoding"])
def test_a_dent_is_found(which, request):
    detector = request.getfixturevalue(which)
    detector = detector[0] if which == "encoding" else detector
    good = detector.predict(batch(parts(6, seed=2, side=16)))
    bad = detector.predict(batch(parts(6, seed=3, side=16, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.7
    assert good.map.shape == (6, 16, 16)


def test_the_map_has_the_size_of_the_image(encoding):
    assert encoding[0].predict(batch(parts(2))).map.shape == (2, 64, 64)


def test_both_stages_share_a_time_budget(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    taken, ticks = [], itertools.count()

    def slow(optimizer, loss, shown=True):
        now[0] += 1
        taken.append(next(ticks))

    monkeypatch.setattr(anogan, "step", slow)
    detector = AnoGAN(**QUICK, encoder=True, steps=1000)
    with progress.budget(12) as budget:
        detector.fit(images(parts(4, side=16)), np.random.default_rng(0))
    assert budget.ended
    assert 11 <= len(taken) <= 14


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"steps": 0}, {"search_steps": 0}, {"search_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        AnoGAN(**{**QUICK, **wrong})


def test_impossible_weights_and_sizes_are_refused():
    with pytest.raises(BadConfig, match="balance is from 0 to 1, not 2"):
        AnoGAN(**QUICK, balance=2.0)
    for encoder in (False, True):
        with pytest.raises(BadConfig, match="size is 16, 32, 64, 128 or 256, not 48"):
            AnoGAN(**{**QUICK, "size": 48}, encoder=encoder)
