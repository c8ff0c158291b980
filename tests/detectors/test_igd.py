import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.data.images import View
from iadbe.detectors.igd import IGD, _Descriptor, cut, joined
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.similarity import ms_ssim, ssim_pyramid

QUICK = {"size": 32, "width": 8, "latent": 16, "batch": 8, "learning_rate": 2e-3}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(IGD(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=60)


@pytest.mark.parametrize(("size", "grids"), [(32, 1), (256, 4)])
def test_the_networks_are_those_of_the_authors(size, grids):
    """Channels 8w, 8w, 4w, 2w, w in the decoder for 256 pixels, and mirrored in the critic."""
    detector = IGD(weights="none", size=size, width=2)
    blocks = [m for m in detector.whole.decoder if hasattr(m, "branch")]
    channels = [m.branch[0].num_features for m in blocks] + [blocks[-1].branch[3].num_features]
    assert channels == [16, 16, 8, 4, 2][-grids - 1 :]
    critic = [m for m in detector.whole.critic if hasattr(m, "branch")]
    assert [m.branch[0].num_channels for m in critic] == channels[:0:-1]
    image = detector.whole.decoder(torch.randn(2, 128))
    assert image.shape == (2, 3, size, size)
    assert detector.whole.critic(image).shape == (2, 1)


def test_one_step_is_the_papers():
    """All terms of both losses, image by image; α belongs to its own image."""
    train = images(parts(3))
    _, losses = trained(train, epochs=1, batch=3)
    rng = np.random.default_rng(0)
    torch_seed, noise_seed = int(rng.integers(2**63)), int(rng.integers(2**63))
    with torch.random.fork_rng(devices=[]):
        again = IGD(**QUICK)
        torch.manual_seed(torch_seed)
        again._initialise()
    model = again.whole
    model.estimate_centre(features := again._pooled(batch(parts(3)), model))
    model.estimate_scale(features, 3)
    again.train()
    shown = next(train.batches(3, rng))
    x = F.interpolate(shown.image, (32, 32), mode="bilinear", antialias=True)
    z = model.code(torch.cat([f.mean((2, 3)) for f in again.backbone(shown)], 1))
    alpha = torch.rand(3, 1, generator=torch.Generator().manual_seed(noise_seed)) * 0.5
    fake, between = (
        model.decoder(z),
        model.decoder(torch.stack([alpha[i] * z[i] + (1 - alpha[i]) * z[2 - i] for i in range(3)])),
    )
    similarity = ms_ssim(ssim_pyramid(x, fake, 4, 3), (0.0516, 0.3295, 0.3463, 0.2726))
    expected = 0.0
    for i in range(3):
        distance = ((z[i] - model.centre) ** 2).sum() / model.scale
        expected += 0.85 * (1 - similarity[i]) + 0.15 * (x[i] - fake[i]).abs().mean() + 1 - (-distance).exp()
        expected += 0.1 * model.critic(between)[i, 0] ** 2
    assert losses == [pytest.approx(expected.item() / 3, rel=1e-4)]
    loss_d = model.critic_loss(x, fake, between, alpha).item()
    expected_d = sum((model.critic(between)[i, 0] - alpha[i, 0]) ** 2 for i in range(3)) / 3
    expected_d += model.critic(0.8 * fake + 0.2 * x).square().mean()
    assert loss_d == pytest.approx(expected_d.item(), rel=1e-4)


def test_centre_and_scale_are_those_of_the_codes():
    detector, features = IGD(**QUICK), torch.randn(20, 320, generator=torch.Generator().manual_seed(0)) * 3
    detector.whole.estimate_centre(features)
    detector.whole.estimate_scale(features, 8)
    with torch.no_grad():
        codes = detector.whole.code(features)
    for found, mean in zip(detector.whole.centre.tolist(), codes.mean(0).tolist(), strict=True):
        assert found == pytest.approx(mean if abs(mean) >= 0.1 else math.copysign(0.1, mean), abs=1e-5)
    squared = ((codes - detector.whole.centre) ** 2).sum(1)
    expected = np.mean([max(1.0, float(part.mean())) for part in (squared[:8], squared[8:16], squared[16:])])
    assert float(detector.whole.scale) == pytest.approx(expected, rel=1e-4)
    detector.whole.estimate_scale(features * 0, 8)
    detector.whole.estimate_centre(features * 0)
    detector.whole.estimate_scale(features * 0, 8)
    assert float(detector.whole.scale) >= 1


def test_centre_and_scale_are_estimated_again_every_ten_epochs(monkeypatch):
    calls = []
    original = _Descriptor.estimate_scale
    monkeypatch.setattr(_Descriptor, "estimate_scale", lambda self, f, n: (calls.append(len(f)), original(self, f, n)))
    trained(images(parts(12)), epochs=21)
    assert calls == [12, 12, 12]  # at the start, after 10 and after 20 epochs


def test_training_lowers_the_loss(fitted):
    _, losses = fitted
    assert len(losses) == 120
    assert np.mean(losses[-10:]) < 0.6 * np.mean(losses[:4])


def test_score_and_map_are_the_papers(fitted):
    detector = copy.copy(fitted[0])
    shown = batch(parts(2, seed=5))
    found = detector.predict(shown)
    x = F.interpolate(shown.image, (32, 32), mode="bilinear", antialias=True)
    with torch.no_grad():
        z = detector.whole.code(detector._pooled(shown, detector.whole))
        fake = detector.whole.decoder(z)
        pyramid = ssim_pyramid(x, fake, 4, 3)
        exponents = (0.0516, 0.3295, 0.3463, 0.2726)
        reconstruction = 0.85 * (1 - ms_ssim(pyramid, exponents)) + 0.15 * (x - fake).abs().mean((1, 2, 3))
        gaussian = 1 - torch.exp(-((z - detector.whole.centre) ** 2).sum(1) / detector.whole.scale)
        torch.testing.assert_close(found.score, 0.5 * reconstruction + 0.5 * gaussian)
        expected = 0.15 * (x - fake).abs()
        for scale, exponent in enumerate(exponents):
            similarity = pyramid[scale][0].clamp(min=0).repeat_interleave(2**scale, 2).repeat_interleave(2**scale, 3)
            expected += 0.85 * exponent * (1 - similarity)
    torch.testing.assert_close(found.map, upsampled(expected.mean(1), (64, 64)))


def test_a_dent_is_found(fitted):
    detector, _ = fitted
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.8


def test_the_view_may_have_another_size(fitted):
    assert fitted[0].predict(batch(parts(2), View(96, crop=88))).map.shape == (2, 88, 88)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"epochs": 0}, {"width": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        IGD(**{**QUICK, **wrong}, weights="none")


def test_other_sizes_are_refused():
    with pytest.raises(BadConfig, match="size is 32, 64, 128 or 256, not 48"):
        IGD(size=48)
    with pytest.raises(BadConfig, match="need a size above 32"):
        IGD(**QUICK, patches=True)


def test_patches_are_cut_row_by_row_and_joined_by_their_means():
    image = torch.rand(2, 3, 64, 64)
    patches = cut(image)
    assert patches.shape == (2 * 9, 3, 32, 32)
    for number, (top, left) in enumerate((16 * y, 16 * x) for y in range(3) for x in range(3)):
        assert torch.equal(patches[9 + number], image[1, :, top : top + 32, left : left + 32])
    torch.testing.assert_close(joined(patches[:, 0].view(2, 9, 32, 32), 64), image[:, 0])
    marked = torch.zeros(1, 9, 32, 32)
    marked[0, 0] = 1  # the first patch alone: a half where two lie, a quarter where four do
    assert joined(marked, 64)[0, ::16, ::16].tolist() == [[1, 0.5, 0, 0], [0.5, 0.25, 0, 0], [0] * 4, [0] * 4]


@pytest.fixture(scope="module")
def with_patches():
    return trained(images(parts(8)), epochs=6, size=64, patches=True)


def test_patches_are_a_second_model_that_leaves_the_first_as_it_is(with_patches):
    detector, losses = with_patches
    alone, of_whole = trained(images(parts(8)), epochs=6, size=64)
    assert losses[:6] == of_whole
    assert all(torch.equal(p, q) for p, q in zip(alone.whole.parameters(), detector.whole.parameters(), strict=True))
    assert len(losses) == 6 + 6 * 4  # of two images each
    assert np.mean(losses[-4:]) < 0.9 * np.mean(losses[6:10])


def test_the_score_with_patches_is_the_authors(with_patches):
    """Half of 0.1 reconstruction + 0.9 classifier of the image, half of the worst patch's 0.9 + 0.1."""
    detector = with_patches[0]
    shown = batch(parts(2, seed=5))
    found = detector.predict(shown)
    with torch.no_grad():
        loss, map_, distance = detector.whole.scored(shown.image, detector._pooled(shown, detector.whole))
        patches = cut(shown.image)
        features = detector.backbone(patches)[0].mean((2, 3))
        of_patch, of_pixel, far = detector.local.scored(patches, features)
    worst = (0.9 * of_patch + 0.1 * far).view(2, 9).amax(1)
    torch.testing.assert_close(found.score, 0.5 * (0.1 * loss + 0.9 * distance) + 0.5 * worst)
    expected = 0.5 * map_ + 0.5 * joined(of_pixel.view(2, 9, 32, 32), 64)
    torch.testing.assert_close(found.map, upsampled(expected, (64, 64)))
