import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.supersimplenet import SuperSimpleNet, truncated_l1, upscaled
from iadbe.errors import BadConfig
from iadbe.layers.synthetic.perlin import perlin_masks

QUICK = {"batch": 4, "width": 64, "noise": 0.06}  # stronger noise needs fewer steps


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(SuperSimpleNet(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=60, **QUICK)


def test_layers_are_interpolated_to_twice_the_first_grid_and_averaged():
    generator = torch.Generator().manual_seed(0)
    layers = [torch.randn(2, 3, 6, 8, generator=generator), torch.randn(2, 5, 3, 4, generator=generator)]
    same = [F.interpolate(f, (12, 16), mode="bilinear", align_corners=False) for f in layers]
    torch.testing.assert_close(upscaled(layers), F.avg_pool2d(torch.cat(same, 1), 3, 1, 1), rtol=1e-4, atol=1e-5)


def test_the_truncated_loss_is_a_sum_of_means():
    map_, mask = torch.tensor([[-0.5, 0.25], [2.0, -9.0]]), torch.tensor([[False, True], [True, False]])
    assert float(truncated_l1(map_, mask)) == pytest.approx(0 + 0.25 / 2)
    assert float(truncated_l1(map_, ~mask)) == pytest.approx((0.75 + 2.5) / 2 + (1.0 + 9.5) / 2)
    assert float(truncated_l1(map_, torch.zeros(2, 2, dtype=torch.bool))) == pytest.approx((0.75 + 2.5) / 4)


def test_about_half_of_the_copies_have_noise_in_their_mask():
    detector = SuperSimpleNet("resnet10t", weights="none", width=8)
    features = torch.randn(100, 16, 16, 8, generator=torch.Generator().manual_seed(0))
    noisy, mask = detector._with_noise(features, torch.Generator().manual_seed(1))
    changed = (noisy - torch.cat([features, features])) != 0
    assert torch.equal(changed.any(-1), mask)
    assert 0.35 < mask.flatten(1).any(1).float().mean() < 0.55  # few masks are empty by themselves
    assert float((noisy - torch.cat([features, features]))[mask].std()) == pytest.approx(0.015, rel=0.02)


def test_the_perlin_noise_is_not_rotated():
    detector = SuperSimpleNet("resnet10t", weights="none", width=8)
    _, mask = detector._with_noise(torch.zeros(20, 16, 16, 8), torch.Generator().manual_seed(1))
    expected = perlin_masks(40, 16, 16, torch.Generator().manual_seed(1), 0.2, rotated=False)[:, 0]
    some = mask.flatten(1).any(1)
    assert 5 < int(some.sum()) < 35
    assert torch.equal(mask[some], expected[some])


def test_the_classification_head_has_no_gradient_to_the_map():
    """The split convolution equals the one over concatenated features and map."""
    detector = SuperSimpleNet("resnet10t", (0, 1), "none", width=16).eval()
    features = torch.randn(2, 10, 10, sum(detector.backbone.channels), generator=torch.Generator().manual_seed(0))
    map_, score = detector._heads(features)
    hidden = detector.convolution(torch.cat([features.permute(0, 3, 1, 2), map_[:, None]], 1))
    pooled = [hidden.amax((2, 3)), hidden.mean((2, 3)), map_.amax((1, 2))[:, None], map_.mean((1, 2))[:, None]]
    torch.testing.assert_close(score, detector.classification(torch.cat(pooled, 1))[:, 0], rtol=1e-4, atol=1e-5)
    score.sum().backward()
    assert detector.segmentation.out.weight.grad is None
    assert detector.classification.weight.grad is not None


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 60 * 4
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_the_learning_rate_falls_at_80_and_90_percent():
    detector = SuperSimpleNet("resnet10t", weights="none", width=8)
    optimizer, rate = detector._optimizer(100)
    rates = []
    for _ in range(100):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        rate.step()
    for step, factor in ((0, 1), (79, 1), (80, 0.4), (89, 0.4), (90, 0.16), (99, 0.16)):
        assert rates[step] == pytest.approx([1e-4 * factor, 2e-4 * factor])


def test_scores_do_not_depend_on_train_or_eval_mode(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"width": 0}, {"noise": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        SuperSimpleNet("resnet10t", weights="none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    """Five epochs at 128 pixels with narrow heads and strong noise, of the paper's three hundred."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=5, **QUICK)
    assert image_auroc(detector, test) > 0.8
