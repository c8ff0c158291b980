import numpy as np
import pytest
import torch

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.simplenet import SimpleNet, hinge
from iadbe.errors import BadConfig


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(SimpleNet(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=40, width=256)


def rms(tensor):
    return float(tensor.square().mean().sqrt())


def test_the_hinge_loss_is_zero_beyond_the_margins():
    assert float(hinge(torch.tensor([0.5, 3.0]), torch.tensor([-0.5, -9.0]))) == 0
    assert float(hinge(torch.tensor([0.25, 1.0]), torch.tensor([0.5, -1.0]))) == pytest.approx((0.25 + 1.0) / 2)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 40 * 4
    assert np.mean(losses[-8:]) < 0.7 * np.mean(losses[:8])


def test_noisy_features_score_higher(fitted):
    detector, _ = fitted
    with torch.no_grad():
        normal = detector._adapted(detector._features(batch(parts(8, seed=2))))
        noise = torch.randn(normal.shape, generator=torch.Generator().manual_seed(0))
        scores = [-detector.discriminator(normal + s * noise) for s in (0, 0.015, 0.06)]
    assert [float(s.median()) for s in scores] == sorted(float(s.median()) for s in scores)
    assert (scores[2] > scores[0]).float().mean() > 0.9


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet10t"])
def test_rescaling_gives_every_backbone_the_same_scale(backbone):
    train = images(parts(4))
    detector, _ = trained(train, backbone=backbone, weights="none", epochs=1, width=8)
    features = torch.cat([detector._features(b) for b in train.batches(4)])
    assert rms(detector.level(features)) == pytest.approx(0.1, rel=1e-3)
    plain, _ = trained(train, backbone=backbone, weights="none", epochs=1, width=8, rescale=False)
    assert float(plain.level.factor) == 1


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_the_image_score_is_the_largest_unsmoothed_patch_score(fitted):
    detector, _ = fitted
    shown = batch(parts(3, seed=3, defective=True))
    with torch.no_grad():
        rows = detector._adapted(detector._features(shown))
        expected = torch.stack([-detector.discriminator(r).min() for r in rows.chunk(3)])
    torch.testing.assert_close(detector.predict(shown).score, expected)


def test_the_paper_embedding_has_1536_values_per_patch():
    detector = SimpleNet("resnet10t", weights="none", embedding=1536)
    assert detector._features(batch(parts(1))).shape == (1, 1536, 8, 8)
    assert detector.adaptor.weight.shape == (1536, 1536)
    assert detector.discriminator.hidden.weight.shape == (1024, 1536)


def test_scores_do_not_depend_on_train_or_eval_mode(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"width": 0}, {"noise": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        SimpleNet("resnet10t", weights="none", **wrong)


@pytest.mark.slow
def test_real_bottles():
    """Two epochs at 128 pixels, of the paper's 160."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=2)
    assert image_auroc(detector, test) > 0.8
