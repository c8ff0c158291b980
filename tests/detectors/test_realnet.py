from contextlib import nullcontext

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from drawn_images import batch, dents_shown, images, parts
from fitted_losses import fit
from iadbe.detectors import realnet
from iadbe.detectors.realnet import RealNet, channel_errors, selected_residuals
from iadbe.errors import BadConfig
from iadbe.layers.features.views import resized_images
from iadbe.layers.training.diffusion import sampled
from iadbe.layers.training.resume import Checkpoints
from iadbe.layers.training.state import learnt_tensors

SMALL = {
    "backbone": "resnet10t",
    "weights": "none",
    "layers": (1, 2),
    "channels": (12, 24),
    "residuals": 8,
    "selection": 3,
    "size": 16,
    "width": 8,
    "attention": 8,
    "steps": 3,
    "diffusion_batch": 4,
    "generated": 20,
    "epochs": 2,
    "batch": 4,
    "foreground": False,
}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


def test_a_channel_s_error_is_that_of_its_scaled_difference_from_the_mask():
    corrupted, normal = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    mask = drawn(2, 1, 8, 8, seed=2) > 0.5
    found = channel_errors(corrupted, normal, mask)
    for c in range(3):
        difference = ((corrupted - normal) ** 2)[:, c]
        low, high = float(difference.min()), float(difference.max())
        total = 0.0
        for b in range(2):
            for i in range(4):
                for j in range(4):
                    scaled = (float(difference[b, i, j]) - low) / (high - low + 1e-4)
                    total += (scaled - float(mask[b, 0, 2 * i, 2 * j])) ** 2  # the nearest pixel
        assert float(found[c]) == pytest.approx(total / 32, rel=1e-4)


def test_residuals_are_selected_by_their_maximum_and_by_their_mean():
    residual = drawn(2, 6, 3, 3)
    found = selected_residuals(residual, 2)
    for b in range(2):
        highest = sorted(range(6), key=lambda c: -float(residual[b, c].max()))[:2]
        largest = sorted(range(6), key=lambda c: -float(residual[b, c].mean()))[:2]
        assert found[b].tolist() == [*highest, *largest]


def test_the_channels_are_kept_that_show_the_defects_best():
    detector, train = RealNet(**SMALL), images(parts(6))
    detector.samples = (drawn(20, 3, 16, 16) * 255).to(torch.uint8)
    seen, plain = [], detector._with_defects

    def noted(image, generator):
        corrupted, mask = plain(image, generator)
        seen.append((image, corrupted, mask))
        return corrupted, mask

    detector._with_defects = noted
    detector._select_channels(train, source(), np.random.default_rng(0))
    assert len(seen) == 3
    assert all(len(image) == 4 for image, _, _ in seen)  # the second batch of an epoch has two images only
    for layer, count in ((0, 12), (1, 24)):
        pairs = [(detector.backbone(corrupted)[layer], detector.backbone(image)[layer]) for image, corrupted, _ in seen]
        errors = sum(channel_errors(a, b, mask) for (a, b), (_, _, mask) in zip(pairs, seen, strict=True))
        best = sorted(range(len(errors)), key=lambda c: float(errors[c]))[:count]
        assert getattr(detector, f"chosen{layer}").tolist() == sorted(best)
    layers = [torch.cat([detector.backbone(image)[layer] for image, _, _ in seen]) for layer in range(2)]
    for own, features in zip(detector._features(layers), layers, strict=True):
        assert float(own.square().mean().sqrt()) == pytest.approx(0.2, rel=1e-4)
        assert own.shape[1] < features.shape[1]
    detector.rescale = False
    detector._select_channels(train, source(), np.random.default_rng(0))
    for layer, own in enumerate(detector._features(layers)):
        torch.testing.assert_close(own, layers[layer][:, getattr(detector, f"chosen{layer}")])


def test_residuals_of_all_layers_are_normalised_to_be_chosen_and_go_on_as_they_are():
    torch.manual_seed(0)
    detector = RealNet(**SMALL).eval()
    detector.norm.running_mean.copy_(drawn(36))
    detector.norm.running_var.copy_(drawn(36, seed=1) + 0.5)
    features = [drawn(2, 12, 8, 8), drawn(2, 24, 4, 4, seed=1)]
    seen = []
    detector.discriminator.forward = lambda x, size: seen.append(x)
    reconstructed, _ = detector._networks(features, (32, 32))
    for own, network, f in zip(reconstructed, detector.reconstruction, features, strict=True):
        torch.testing.assert_close(own, network(f))
    fine = (features[0] - reconstructed[0]) ** 2
    coarse = F.interpolate((features[1] - reconstructed[1]) ** 2, (8, 8), mode="bilinear", align_corners=True)
    together = torch.cat([fine, coarse], 1)
    mean, variance = detector.norm.running_mean, detector.norm.running_var
    normal = (together - mean.view(-1, 1, 1)) / (variance + 1e-5).sqrt().view(-1, 1, 1)
    for b in range(2):
        order = selected_residuals(normal, 8)[b]
        torch.testing.assert_close(seen[0][b], torch.stack([together[b, c] for c in order.tolist()]))


def test_the_discriminator_is_what_the_authors_describe():
    torch.manual_seed(0)
    net = realnet._Discriminator(6).eval()
    x = drawn(2, 6, 8, 8)
    y = x
    for first, second in ((net.stack[0][1], net.stack[0][3]), (net.stack[1][1], net.stack[1][3])):
        y = y + second(F.relu(first(F.relu(y))))
    y = F.relu(net.reducing[2](net.reducing[1](F.relu(y))))
    y = F.relu(net.reducing[6](F.relu(net.reducing[4](y))))
    y = F.interpolate(y, (16, 16), mode="bilinear", align_corners=True)
    y = net.last[2](F.relu(net.last[0](y)))
    expected = F.interpolate(y, (20, 20), mode="bilinear", align_corners=True)
    torch.testing.assert_close(net(x, (20, 20)), expected)
    convolutions = [m.out_channels for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    assert convolutions == [6, 6, 6, 6, 128, 32, 8, 4, 2]


def test_the_loss_is_the_cross_entropy_and_the_squared_error_of_every_layer():
    detector, mask = RealNet(**SMALL), (drawn(2, 16, 16) > 0.5).long()
    normal = [drawn(2, 12, 8, 8), drawn(2, 24, 4, 4, seed=1)]
    made = [drawn(2, 12, 8, 8, seed=2), drawn(2, 24, 4, 4, seed=3)]
    logits = torch.randn(2, 2, 16, 16, generator=source())
    detector._networks = lambda features, size: (made, logits)
    probability = logits.softmax(1)
    right = torch.where(mask == 1, probability[:, 1], probability[:, 0])
    expected = -right.log().mean() + sum(((a - b) ** 2).mean() for a, b in zip(made, normal, strict=True))
    torch.testing.assert_close(detector._loss(normal, normal, mask), expected)


def test_samples_are_blended_in_with_opacities_of_a_half_to_one():
    detector = RealNet(**SMALL)
    detector.samples = torch.full((5, 3, 16, 16), 255, dtype=torch.uint8)
    corrupted, mask = detector._with_defects(torch.zeros(200, 3, 32, 32), source())
    changed = corrupted.amax(1, keepdim=True)
    assert not changed[~mask].any()
    seen = changed.amax((1, 2, 3))[mask.flatten(1).any(1)]
    assert 0.5 <= float(seen.min()) < 0.53
    assert 0.97 < float(seen.max()) <= 1


def test_the_score_is_the_highest_mean_over_16_by_16_pixels():
    detector = RealNet(**SMALL)
    logits = torch.randn(2, 2, 20, 20, generator=source())
    detector._networks = lambda features, size: ([], logits)
    found = detector.predict(batch(parts(2, side=20)))
    torch.testing.assert_close(found.map, torch.softmax(logits, 1)[:, 1])
    for b in range(2):
        means = [float(found.map[b, i : i + 16, j : j + 16].mean()) for i in range(5) for j in range(5)]
        assert float(found.score[b]) == pytest.approx(max(means), rel=1e-5)


@pytest.mark.slow
def test_at_16_pixels_samples_serve_after_450_steps():
    """A sample is then as near to a training image as its noise allows, and the farther the stronger the anomaly.

    Distances are root mean squares of pixels in [0, 1]. The images themselves have a standard deviation of 0.18, and
    are 0.04 apart. After 100 steps samples are noise: 0.30 from the nearest image.
    """
    train, rate = images(parts(16)), {"diffusion_rate": 4e-3, "diffusion_batch": 16, "decay": 0.98}
    detector = RealNet(**{**SMALL, **rate, "steps": 450})
    network = detector.trained_diffusion(train, source(), np.random.default_rng(0))
    real = resized_images(next(train.batches(16)).image, 16)
    distance = []
    for strength in (0.0, 0.15, 1.0):
        generator = source(5)
        noise = torch.randn(8, 3, 16, 16, generator=generator)
        made = sampled(detector.schedule.spaced(20), network, noise, generator, strength)
        apart = ((made[:, None] + 1) / 2 - real).square().mean((2, 3, 4)).sqrt()
        distance.append(float(apart.amin(1).mean()))
    assert distance[0] < 0.12
    assert distance[0] + 0.01 < distance[1] < distance[2]


@pytest.mark.slow
def test_training_lowers_the_losses_and_dents_are_found():
    """With the embedded backbone, in 100 steps; the diffusion model, of 30 steps, makes little more than noise here."""
    params = {"size": 16, "width": 8, "attention": 8, "steps": 30, "diffusion_batch": 8, "diffusion_rate": 2e-3}
    params |= {"channels": (24, 24, 24, 24), "residuals": 24, "generated": 16, "selection": 4, "foreground": False}
    rest = {"batch": 8, "epochs": 50, "learning_rate": 2e-3}
    detector, losses = fit(RealNet(**params, **rest), images(parts(16)))
    assert len(losses) == 30 + 100
    assert np.mean(losses[20:30]) < 0.8 * np.mean(losses[:5])
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[30:35])
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert float((bad.score[:, None] > good.score).float().mean()) > 0.9
    assert dents_shown(dented, bad.map, within=8) >= 6


def test_as_many_samples_are_made_as_are_wanted_and_none_are_kept():
    detector, seen = RealNet(**SMALL), []
    plain = detector._select_channels
    detector._select_channels = lambda *given: seen.append(detector.samples) or plain(*given)
    detector.fit(images(parts(6)), np.random.default_rng(0))
    assert seen[0].shape == (20, 3, 16, 16)
    assert seen[0].dtype == torch.uint8
    assert all(len(one.unique()) > 10 for one in seen[0])
    assert not len(detector.samples)
    assert not any("samples" in name for name in detector.state_dict())


def test_sampling_that_was_interrupted_goes_on_with_the_same_images(tmp_path):
    def fitted(checkpoints=None, until=None):
        torch.manual_seed(0)
        detector, calls, seen = RealNet(**{**SMALL, "generated": 40}), [], []
        sample, select = detector.new_samples, detector._select_channels

        def noted(*given):
            calls.append(given)
            if len(calls) == until:
                raise KeyboardInterrupt
            return sample(*given)

        detector.new_samples = noted
        detector._select_channels = lambda *given: seen.append(detector.samples) or select(*given)
        with checkpoints.training(detector, "0") if checkpoints else nullcontext():
            detector.fit(images(parts(6)), np.random.default_rng(0))
        return seen[0], len(calls), learnt_tensors(detector)

    samples, rounds, learnt = fitted()
    with pytest.raises(KeyboardInterrupt):
        fitted(Checkpoints(tmp_path, {"run": "a"}, interval=0), until=3)
    again, rest, learnt_again = fitted(Checkpoints(tmp_path, {"run": "a"}, interval=0))
    assert (rounds, rest) == (3, 1)
    assert torch.equal(samples, again)
    assert all(torch.equal(value, learnt_again[name]) for name, value in learnt.items())


def test_half_of_the_images_have_defects_and_only_their_features_change():
    detector, seen = RealNet(**{**SMALL, "batch": 30}), []
    plain = detector._loss
    detector._loss = lambda *given: seen.append(given) or plain(*given)
    detector.fit(images(parts(30, side=32)), np.random.default_rng(0))
    features, normal, mask, _ = seen[0]
    defective = mask.flatten(1).any(1)
    assert 5 < int(defective.sum()) < 25
    for own, target in zip(features, normal, strict=True):
        assert torch.equal(own[~defective], target[~defective])
        assert all(not torch.equal(a, b) for a, b in zip(own[defective], target[defective], strict=True))


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"steps": 0}, "above 0"),
        ({"size": 8}, "at least 16"),
        ({"width": 7}, "must be even"),
        ({"decay": 1.0}, "decay in"),
        ({"channels": (12,)}, "one for each of the layers"),
    ],
)
def test_impossible_parameters_are_refused(params, words):
    with pytest.raises(BadConfig, match=words):
        RealNet(**{**SMALL, **params})
