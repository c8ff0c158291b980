import math

import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from fitted_losses import fit
from iadbe.detectors.diffusionad import DiffusionAD, norm_guided
from iadbe.errors import BadConfig
from iadbe.layers.training.diffusion import NoiseSchedule

SMALL = {"size": 32, "width": 8, "attention": 8, "batch": 4, "epochs": 1, "foreground": False}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


def kept(t):
    """ᾱ of the linear schedule."""
    return math.prod(1 - (1e-4 + (0.02 - 1e-4) * step / 999) for step in range(t + 1))


def test_little_noise_is_removed_under_the_guidance_of_the_estimate_from_much_noise():
    """Equations 5 to 8 of the paper, for each image."""
    image, noises = drawn(2, 3, 4, 4), [torch.randn(2, 3, 4, 4, generator=source(s)) for s in (1, 2)]
    times, output = [torch.tensor([10, 250]), torch.tensor([300, 800])], 0.8 * torch.randn(4, 3, 4, 4)
    seen = []

    def network(x, t):
        seen.append((x, t.tolist()))
        return output

    found, error = norm_guided(NoiseSchedule(), network, image, times, noises)
    assert seen[0][1] == [10, 250, 300, 800]
    for b in range(2):
        little, much = kept(int(times[0][b])), kept(int(times[1][b]))
        x, far = (
            math.sqrt(a) * image[b] + math.sqrt(1 - a) * e[b] for a, e in zip((little, much), noises, strict=True)
        )
        torch.testing.assert_close(seen[0][0][b], x)
        torch.testing.assert_close(seen[0][0][2 + b], far)
        own, other = output[b], output[2 + b]
        coarse = ((far - math.sqrt(1 - much) * other) / math.sqrt(much)).clamp(-1, 1)
        guide = math.sqrt(little) * coarse + math.sqrt(1 - little) * own
        guided = own - math.sqrt(1 - little) * (guide - x)
        expected = ((x - math.sqrt(1 - little) * guided) / math.sqrt(little)).clamp(-1, 1)
        torch.testing.assert_close(found[b], expected, rtol=1e-4, atol=1e-5)
        wanted = ((own - noises[0][b]) ** 2).mean() + ((other - noises[1][b]) ** 2).mean()
        torch.testing.assert_close(error[b], wanted)


def test_the_loss_is_the_noise_of_normal_images_and_focal_and_smooth_l1_loss_of_all(monkeypatch):
    detector, image = DiffusionAD(**SMALL), drawn(3, 3, 32, 32)
    mask = torch.zeros(3, 32, 32, dtype=torch.bool)
    mask[1, 4:9, 5:20] = True
    logits, error = torch.randn(3, 32, 32, generator=source(1)), torch.tensor([0.5, 7.0, 0.2])
    seen = {}

    def given(schedule, network, image, times, noises, region=None):
        seen["times"], seen["noises"] = times, noises
        return image, error

    monkeypatch.setattr("iadbe.detectors.diffusionad.norm_guided", given)
    detector._logits = lambda image, estimate: logits
    found = float(detector._loss(image, mask, source()))
    focal, smooth = [], []
    for x, y in zip(logits.flatten().tolist(), mask.flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        right, far = p if y else 1 - p, abs(p - y)
        focal.append(-0.5 * (1 - right) ** 4 * math.log(right))
        smooth.append(0.5 * far**2 if far < 1 else far - 0.5)
    assert found == pytest.approx(0.35 + 5 * np.mean(focal) + np.mean(smooth), rel=1e-4)
    assert all(noise.shape == image.shape for noise in seen["noises"])
    many = [detector._loss(image, ~mask, source(s)) and seen["times"] for s in range(200)]
    little, much = (torch.stack([times[k] for times in many]) for k in range(2))
    assert 0 <= int(little.min()) < 10
    assert 290 < int(little.max()) < 300
    assert 300 <= int(much.min()) < 310
    assert 990 < int(much.max()) < 1000
    full = torch.ones_like(mask)  # no normal image: no loss of the noise
    logits.fill_(50.0)
    assert float(detector._loss(image, full, source())) == pytest.approx(0, abs=1e-6)


def test_half_of_the_images_have_a_defect_of_a_texture_or_of_their_own_tiles():
    image = drawn(60, 3, 32, 32)
    changed, mask = DiffusionAD(**SMALL)._with_defects(image, source())
    assert 18 < int(mask.flatten(1).any(1).sum()) < 42
    differs = (changed != image).any(1)
    assert not differs[~mask].any()
    assert float(differs[mask].float().mean()) > 0.9
    assert 0 <= float(changed.min()) <= float(changed.max()) <= 1


def test_defects_lie_on_the_object():
    image = torch.full((30, 3, 32, 32), 0.9)
    image[:, :, 8:24, 8:24] = 0.2
    _, mask = DiffusionAD(**{**SMALL, "foreground": True})._with_defects(image, source())
    assert mask.any()
    assert not mask[:, :, :7].any()
    assert not mask[:, 25:].any()


def test_opacities_are_from_a_fifth_to_four_fifths(monkeypatch):
    monkeypatch.setattr("iadbe.detectors.diffusionad.augmented", lambda texture, source: torch.ones_like(texture))
    changed, mask = DiffusionAD(**SMALL)._with_defects(torch.zeros(300, 3, 16, 16), source())
    seen = changed.amax((1, 2, 3))[mask.flatten(1).any(1)]
    assert 0.2 <= float(seen.min()) < 0.25
    assert 0.75 < float(seen.max()) <= 0.8


def test_the_score_is_the_mean_of_the_highest_pixels_and_every_image_has_the_same_noise(monkeypatch):
    detector, seen = DiffusionAD(**SMALL, top=7), {}
    logits = 2 * torch.randn(3, 32, 32, generator=source())

    def given(schedule, network, image, times, noises, region=None):
        seen.update(times=[t.tolist() for t in times], noises=noises)
        return image, None

    monkeypatch.setattr("iadbe.detectors.diffusionad.norm_guided", given)
    detector._logits = lambda image, estimate: logits
    found = detector.predict(batch(parts(3)))
    assert seen["times"] == [[200] * 3, [400] * 3]
    for noise in seen["noises"]:
        assert torch.equal(noise[0], noise[2])
    assert not torch.equal(*seen["noises"])
    expected = [sorted(one.sigmoid().flatten().tolist())[-7:] for one in logits]
    torch.testing.assert_close(found.score, torch.tensor(expected).mean(1))
    assert found.map.shape == (3, 64, 64)


def test_the_segmentation_s_learning_rate_falls_to_0_in_ten_steps_and_rises_again():
    detector, rates = DiffusionAD(**{**SMALL, "epochs": 11}), []
    detector._loss = lambda image, mask, source, region: sum(p.sum() for p in detector.parameters())
    plain = torch.optim.Adam.step

    def noted(self, *args, **kwargs):
        rates.append([group["lr"] for group in self.param_groups])
        return plain(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", noted)
        detector.fit(images(parts(6, side=32)), np.random.default_rng(0))
    assert len(rates) == 22  # two steps in each epoch
    expected = [(1 + math.cos(math.pi * n / 10)) / 2 * 1e-5 for n in range(22)]
    np.testing.assert_allclose([rate[1] for rate in rates], expected, atol=1e-12)
    assert {rate[0] for rate in rates} == {1e-4}


def test_the_segmentation_has_half_of_the_channels_or_as_many_as_are_given():
    half, given = DiffusionAD(**SMALL), DiffusionAD(**SMALL, segmentation_width=6)
    widths = [[stage[0].out_channels for stage in d.segmentation.down] for d in (half, given)]
    assert widths == [[4, 8, 16, 32, 32, 32], [6, 12, 24, 48, 48, 48]]


@pytest.mark.slow
def test_training_lowers_the_loss_and_a_dent_is_found():
    params = {**SMALL, "batch": 8, "epochs": 50, "learning_rate": 3e-3, "segmentation_rate": 5e-3, "top": 20}
    detector, losses = fit(DiffusionAD(**params), images(parts(16)))
    assert len(losses) == 100
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert float((bad.score[:, None] > good.score).float().mean()) > 0.75


@pytest.mark.parametrize(
    ("params", "words"),
    [({"width": 7}, "must be even"), ({"size": 8}, "at least 16"), ({"epochs": 0}, "above 0"), ({"top": 0}, "above 0")],
)
def test_impossible_parameters_are_refused(params, words):
    with pytest.raises(BadConfig, match=words):
        DiffusionAD(**{**SMALL, **params})
    with pytest.raises(BadConfig, match="segmentation_width must not be below 0"):
        DiffusionAD(**SMALL, segmentation_width=-1)
    with pytest.raises(BadConfig, match="segmentation_rate must be above 0"):
        DiffusionAD(**{**SMALL, "segmentation_rate": 0.0})
