import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe import progress
from iadbe.data.images import View
from iadbe.detectors import glass
from iadbe.detectors.glass import GLASS, hard_focal_loss, has_compact_spectrum
from iadbe.errors import BadConfig
from iadbe.layers.synthetic.gradient_ascent import projected

QUICK = {"batch": 4, "width": 64}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(GLASS(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module", params=["manifold", "hypersphere"])
def fitted(request):
    return trained(images(parts(16)), epochs=25, distribution=request.param)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 25 * 4
    assert np.mean(losses[-8:]) < 0.9 * np.mean(losses[:8])


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    bad = assert_dents_are_found(detector, shown=6)
    assert 0 <= float(bad.map.min()) <= float(bad.map.max()) <= 1


def test_the_focal_loss_takes_the_half_with_the_largest_error():
    logits, truth = torch.randn(11, generator=source()), torch.rand(11, generator=source(1)) < 0.4
    p = logits.sigmoid()
    terms = sorted(
        (float((a - float(t)) ** 2), float(-((1 - (a if t else 1 - a)) ** 2) * (a if t else 1 - a).log()))
        for a, t in zip(p, truth, strict=True)
    )
    expected = np.mean([loss for _, loss in terms[5:]])  # the median and what is above it
    assert float(hard_focal_loss(logits, truth)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("distribution", ["manifold", "hypersphere"])
def test_the_loss_is_that_of_the_paper(distribution):
    """Equations of section 3, on few features, without ascent: cross-entropies, projections and the focal loss."""
    detector = GLASS("resnet10t", (0, 1), "none", width=16, ascent=0, distribution=distribution)
    detector.discriminator.train()
    dim = detector.dim
    normal, local = (torch.randn(12, dim, generator=source(seed)) for seed in (0, 1))
    mask = torch.arange(12) % 3 == 0
    if distribution == "hypersphere":
        detector.centre = torch.randn(6, dim, generator=source(2))
    found = detector._loss(normal, local, mask, source(5))
    noisy = normal + 0.015 * torch.randn(12, dim, generator=source(5))
    if distribution == "hypersphere":
        centre = (detector.centre @ detector.adaptor.weight.T + detector.adaptor.bias).repeat(2, 1)
        good = [(local[i] - centre[i]).norm() for i in range(12) if not mask[i]]
        good += [(normal[i] - centre[i]).norm() for i in range(12)]
        radius = torch.quantile(torch.stack(good), 0.75)
        local = torch.stack(
            [
                centre[i] + (local[i] - centre[i]) * (d.clamp(2 * radius, 4 * radius) / d) if mask[i] else local[i]
                for i in range(12)
                for d in [(local[i] - centre[i]).norm()]
            ]
        )
    scores = detector.discriminator(torch.cat([normal, noisy])).sigmoid()
    expected = F.binary_cross_entropy(scores[:12], torch.zeros(12)) + F.binary_cross_entropy(
        scores[12:], torch.ones(12)
    )
    expected = expected + hard_focal_loss(detector.discriminator(local), mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_global_anomalies_are_kept_at_a_distance(monkeypatch):
    """Of a manifold: from their own normal feature, between r and 2r, which grow with the root of their length."""
    detector = GLASS("resnet10t", (0, 1), "none", width=16, ascent=5, distribution="manifold")
    detector.discriminator.train()
    seen = []
    monkeypatch.setattr(glass, "projected", lambda *given: seen.append(projected(*given)) or seen[-1])
    normal = torch.randn(12, detector.dim, generator=source())
    detector._loss(normal, normal, torch.arange(12) < 3, source())
    far = (seen[-1] - normal).norm(dim=1)
    radius = 0.5 * (detector.dim / 1536) ** 0.5
    assert radius - 1e-5 <= float(far.min()) <= float(far.max()) <= 2 * radius + 1e-5


def test_the_optimizers_are_those_of_the_authors():
    """One object that takes the steps of Adam (with L2) for the adaptor and AdamW for the discriminator."""
    detector = GLASS("resnet10t", (0, 1), "none", width=8)
    twins = [[torch.nn.Parameter(p.detach().clone()) for p in part.parameters()] for part in parts_of(detector)]
    ours = detector._optimizer()
    theirs = [torch.optim.Adam(twins[0], 1e-4, weight_decay=1e-5), torch.optim.AdamW(twins[1], 2e-4)]
    for number in range(3):
        for part, twin in zip(parts_of(detector), twins, strict=True):
            for p, q in zip(part.parameters(), twin, strict=True):
                p.grad = torch.randn(p.shape, generator=source(number))
                q.grad = p.grad.clone()
        for optimizer in (ours, *theirs):
            optimizer.step()
    for part, twin in zip(parts_of(detector), twins, strict=True):
        for p, q in zip(part.parameters(), twin, strict=True):
            torch.testing.assert_close(p, q)


def parts_of(detector):
    return detector.adaptor, detector.discriminator


def test_textures_lie_on_the_object_with_the_drawn_opacity():
    detector = GLASS("resnet10t", (0, 1), "none", width=8)
    shown = batch(parts(12)).image
    made, mask = detector._textured(shown, source())
    assert mask.flatten(1).any(1).all()
    assert torch.equal(made.masked_fill(mask, 0), shown.masked_fill(mask, 0))
    y, x = torch.meshgrid(*[torch.arange(64) / 64 - 0.5] * 2, indexing="ij")
    assert not mask[:, 0, (y**2 + x**2) > 0.4**2].any()
    _, everywhere = GLASS("resnet10t", (0, 1), "none", width=8, foreground=False)._textured(shown, source())
    assert everywhere[:, 0, (y**2 + x**2) > 0.4**2].any()
    black = detector._textured(torch.zeros(200, 3, 32, 32), source())[0]
    assert float(black.max()) <= 0.8  # at least a fifth of the image stays


def test_the_centre_is_the_mean_of_each_position():
    detector, _ = trained(images(parts(6)), epochs=1, distribution="hypersphere")
    features = detector._features(batch(parts(6)))
    expected = detector.level(features.flatten(2).mean(0).T)
    torch.testing.assert_close(detector.centre, expected, rtol=1e-4, atol=1e-5)
    assert len(trained(images(parts(6)), epochs=1, distribution="manifold")[0].centre) == 0


def literal_judgement(image):
    """The authors' steps with NumPy, given a grey image of 289 x 289 levels that is blurred already."""
    magnitude = 20 * np.log(np.abs(np.fft.fftshift(np.fft.fft2(image))) + 1e-12)
    y, x = np.where(magnitude > 170)
    radius = np.hypot(x - 144, y - 144).max()
    box = len(x) / (4 * max(np.abs(x - 144).max(), 1) * max(np.abs(y - 144).max(), 1))
    every = np.hypot(*(np.indices((578, 578)) - 144))
    return (box > 0.21 or len(x) / (every <= radius).sum() > 0.21) and radius > 12 and len(x) > 60


def test_the_spectrum_of_the_mean_image_tells_the_distribution():
    y, x = torch.meshgrid(*[torch.arange(289) / 289 - 0.5] * 2, indexing="ij")
    disc = ((y**2 + x**2) < 0.3**2).float()
    corner = ((y > 0.2) & (x > 0.2)).float()
    images_ = [disc, corner, torch.full((289, 289), 0.5) + 0.01 * x, (x > 0).float(), (8 * x).sin() / 2 + 0.5]
    answers = []
    for image in images_:
        levels = np.floor(image.numpy() * np.float32(0.2989 + 0.587 + 0.114) * 255)
        padded = np.pad(levels, 19, mode="reflect")
        blurred = np.lib.stride_tricks.sliding_window_view(padded, (39, 39)).mean((2, 3))
        answers.append(bool(literal_judgement(blurred)))
        assert has_compact_spectrum(image.expand(3, -1, -1)) == answers[-1]
    assert len(set(answers)) == 2


def test_an_epoch_takes_392_images_at_most(monkeypatch):
    detector = GLASS("resnet10t", (0, 1), "none", width=8, ascent=0, epochs=2, batch=4, distribution="manifold")
    monkeypatch.setattr(glass, "IMAGES", 8)
    losses = []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(parts(16)), np.random.default_rng(0))
    assert len(losses) == 2 * 3  # the authors stop after the batch that exceeds the limit


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"ascent": -1}, {"noise": 0.0}, {"distribution": "plane"}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        GLASS("resnet10t", (0, 1), "none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(128))
    detector, _ = trained(train, width=256, epochs=4, batch=8)
    assert image_auroc(detector, test) > 0.85
