import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import Batch, View
from iadbe.detectors.cutpaste import CutPaste, all_crops, grad_cam, random_crops, spread
from iadbe.errors import BadConfig
from iadbe.layers.statistics.shrinkage import ShrunkGaussian

QUICK = {"backbone": "resnet10t", "weights": "none", "width": 32, "batch": 8}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(CutPaste(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(24)), backbone="tf_efficientnet_lite0.in1k", weights="auto", steps=25, frozen=5)


def test_the_training_loss_falls(fitted):
    losses = fitted[1]
    assert len(losses) == 25
    assert np.mean(losses[:5]) == pytest.approx(np.log(3), rel=0.25)  # three classes
    assert np.mean(losses[-10:]) < 0.85 * np.mean(losses[:5])


def test_a_dent_is_detected(fitted):
    detector, _ = fitted
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9
    assert bad.map.shape == (8, 64, 64)


def test_the_patch_model_scores_every_crop():
    detector, losses = trained(images(parts(12)), patch=32, stride=8, steps=30)
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    dented = batch(parts(6, seed=3, defective=True))
    found = detector.predict(dented)
    crops = torch.stack([dented.image[:, :, y : y + 32, x : x + 32] for y in range(0, 33, 8) for x in range(0, 33, 8)])
    with torch.no_grad():
        scores = detector.gaussian.distance(F.normalize(detector.encoder(crops[:, 0]).mean((2, 3))))
    assert float(found.score[0]) == pytest.approx(float(scores.max()), rel=1e-4)
    assert found.map.shape == (6, 64, 64)


def test_patches_larger_than_the_image_are_the_image():
    detector, _ = trained(images(parts(4)), patch=128, steps=2)
    found = detector.predict(batch(parts(2)))
    torch.testing.assert_close(found.map.amax((1, 2)), found.score)


@pytest.mark.parametrize(("variant", "classes"), [("3-way", 3), ("binary", 2), ("scar", 2)])
def test_the_classes_of_each_variant(variant, classes):
    detector = CutPaste(**QUICK, variant=variant)
    image = torch.rand(4, 3, 64, 64, generator=source())
    made = detector._pasted(image, source(1))
    assert len(made) == classes == detector.head[-1].out_features
    assert torch.equal(made[0], image)
    changed = [(m != image).any(1).float().mean((1, 2)) for m in made[1:]]
    if variant != "scar":
        assert 0.015 < float(changed[0].min()) < float(changed[0].max()) < 0.16
    if variant != "binary":
        assert 0 < float(changed[-1].max()) < 16 * 25 / 256**2 * 1.5


def test_grad_cam_is_that_of_automatic_differentiation():
    """Selvaraju et al., equations 1 and 2, for the distance of the normalised mean."""
    gaussian = ShrunkGaussian()
    gaussian.fit(F.normalize(torch.rand(20, 6, generator=source(1))))
    features = torch.rand(3, 6, 4, 5, generator=source()).requires_grad_()
    distance = gaussian.distance(F.normalize(features.mean((2, 3))))
    gradient = torch.autograd.grad(distance.sum(), features)[0]
    expected = (gradient.mean((2, 3), keepdim=True) * features).sum(1).relu()
    found = grad_cam(features.detach(), gaussian)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)
    assert float(found.max()) > 0


def test_scores_of_crops_are_spread_by_a_gaussian():
    scores = torch.rand(1, 4, 3, generator=source())
    found = spread(scores, (28, 24), 16, 4)
    sigma = 0.3 * (16 / 2 - 1.5) + 0.8
    for y, x in ((0, 0), (13, 7), (27, 23)):
        total = weight = 0.0
        for i in range(4):
            for j in range(3):
                far = (y + 0.5 - (4 * i + 8)) ** 2 + (x + 0.5 - (4 * j + 8)) ** 2
                total += np.exp(-far / (2 * sigma**2)) * float(scores[0, i, j])
                weight += np.exp(-far / (2 * sigma**2))
        assert float(found[0, y, x]) == pytest.approx(total / weight, rel=1e-4)
    torch.testing.assert_close(spread(torch.ones(1, 4, 3), (28, 24), 16, 4), torch.ones(1, 28, 24))


def test_crops_are_parts_of_their_image():
    image = torch.rand(3, 3, 20, 24, generator=source())
    crops = all_crops(image, 8, 4)
    assert crops.shape == (3, 4, 5, 3, 8, 8)
    assert torch.equal(crops[1, 2, 3], image[1, :, 8:16, 12:20])
    whole = image.unfold(2, 8, 1).unfold(3, 8, 1)
    for i, crop in enumerate(random_crops(image, 8, source(2))):
        assert (whole[i].permute(1, 2, 0, 3, 4) == crop).flatten(2).all(2).any()


def test_the_network_is_frozen_in_the_first_steps():
    start = CutPaste(backbone="tf_efficientnet_lite0.in1k", width=16, steps=2).encoder.state_dict()
    for frozen, same in ((2, True), (1, False)):
        detector, _ = trained(
            images(parts(4)), backbone="tf_efficientnet_lite0.in1k", weights="auto", steps=2, frozen=frozen
        )
        now = dict(detector.encoder.named_parameters())
        assert all(torch.equal(start[k], v) for k, v in now.items()) == same
    assert CutPaste(**QUICK, frozen=30).frozen == 0  # from scratch there is nothing to keep


def test_the_head_has_depth_and_width():
    linear = [m for m in CutPaste(**{**QUICK, "width": 40}, depth=3).head if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [40, 40, 40, 10, 3]


def test_augmented_images_are_close_to_the_image():
    image = F.interpolate(torch.rand(50, 3, 4, 4, generator=source()), (64, 64), mode="bilinear")
    found = CutPaste(**QUICK)._augmented(Batch(image), source(1))[0]
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert 0.005 < float((found - image).abs().mean()) < 0.1


@pytest.mark.parametrize("wrong", [{"variant": "4-way"}, {"steps": 0}, {"patch": 8}, {"depth": -1}, {"stride": 0}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        CutPaste(**{**QUICK, **wrong})


def test_a_vision_transformer_by_name():
    detector, losses = trained(images(parts(4)), backbone="vit_tiny_patch16_224", steps=2)
    assert len(losses) == 2
    assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


@pytest.mark.slow
@pytest.mark.full
def test_real_bottles():
    train, test = bottles(View(128))
    detector, _ = trained(
        train, backbone="tf_efficientnet_lite0.in1k", weights="auto", width=512, steps=60, batch=16, frozen=20
    )
    assert image_auroc(detector, test) > 0.85
