import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe import progress
from iadbe.data.images import Batch, View
from iadbe.detectors.stfpm import STFPM
from iadbe.errors import BadConfig

SHARED = Path(__file__).parents[3] / "shared"


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(STFPM(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=20, batch=8)


def weights_of(network):
    return torch.cat([p.detach().flatten() for p in network.parameters()])


@pytest.mark.parametrize("weights", ["auto", "none"])
def test_the_students_first_weights_are_unrelated_to_the_teachers(weights):
    detector = STFPM(weights=weights)
    names = dict(detector.backbone.network.named_parameters())
    kernels = [(p, names[n]) for n, p in detector.student.named_parameters() if p.dim() == 4]
    assert len(kernels) > 10
    for student, teacher in kernels:
        assert student.shape == teacher.shape
        cosine = F.cosine_similarity(student.detach().flatten(), teacher.flatten(), 0)
        assert abs(float(cosine)) < 0.5


def test_the_scales_of_all_batch_norms_start_at_1():
    """As in the authors' torchvision network; timm starts the last one of each block at 0."""
    student = STFPM("resnet18", weights="none").student
    scales = [m.weight for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert len(scales) > 10
    assert all(torch.equal(scale, torch.ones_like(scale)) for scale in scales)


def test_every_fit_starts_from_a_new_student(fitted):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        started = [
            weights_of(trained(images(parts(2)), seed=s, epochs=1, learning_rate=1e-9)[0].student) for s in (0, 0, 1)
        ]
    assert torch.equal(started[0], started[1])
    assert not torch.allclose(started[0], started[2], atol=1e-3)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 20 * 2
    assert np.mean(losses[-4:]) < 0.25 * np.mean(losses[:2])
    # two unrelated directions are √2 apart: ½ · 2 for each of three layers
    assert losses[0] == pytest.approx(3, abs=0.3)


def test_the_teacher_stays_frozen(fitted):
    detector, _ = fitted
    fresh = STFPM().backbone.state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in detector.backbone.state_dict().items())


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector, above=0.95, within=64 / 5)


def test_the_map_is_the_product_of_the_layers_maps(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    product = torch.ones(2, 64, 64)
    with torch.no_grad():
        normalised = (shown.image - detector.backbone.mean) / detector.backbone.std
        student = detector.student.forward_intermediates(normalised, indices=[1, 2, 3], intermediates_only=True)
        for t, s in zip(detector.backbone(shown), student, strict=True):
            difference = t / t.norm(dim=1, keepdim=True) - s / s.norm(dim=1, keepdim=True)
            error = 0.5 * difference.pow(2).sum(1, keepdim=True)
            product *= F.interpolate(error, (64, 64), mode="bilinear", align_corners=False)[:, 0]
    prediction = detector.predict(shown)
    torch.testing.assert_close(prediction.map, product, rtol=1e-3, atol=1e-6)
    assert torch.equal(prediction.score, prediction.map.amax((1, 2)))


def test_layers_may_come_in_any_order():
    a, b = (STFPM("resnet10t", layers, "none") for layers in ((1, 3), (3, 1)))
    b.load_tensors(a.state_dict())
    shown = batch(parts(2))
    torch.testing.assert_close(a.predict(shown).map, b.predict(shown).map)


def test_scores_do_not_depend_on_train_or_eval_mode(fitted):
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    expected = detector.predict(shown).score
    before = {k: v.clone() for k, v in detector.state_dict().items()}
    detector.train()
    assert torch.equal(detector.predict(shown).score, expected)
    assert all(torch.equal(before[k], v) for k, v in detector.state_dict().items())


def test_a_spent_budget_ends_the_training():
    with progress.budget(0):
        _, losses = trained(images(parts(4)), backbone="resnet10t", weights="none")
    assert losses == []


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"learning_rate": -1.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        STFPM("resnet10t", (1,), "none", **wrong)


def test_teacher_and_student_get_the_same_normalised_image():
    """A student that equals its teacher has an error of 0."""
    detector = STFPM("resnet10t", (1, 2), "none")
    detector.student = copy.deepcopy(detector.backbone.network)
    prediction = detector.predict(Batch(torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))))
    assert float(prediction.score.max()) < 1e-9


@pytest.mark.slow
def test_real_bottles():
    """A teacher with ImageNet weights, eight epochs at 128 pixels (the paper: a hundred)."""
    trunk = SHARED / "weights/resnet18_conv1-layer3.pth"
    if not trunk.is_file():
        pytest.skip("the real ResNet-18 and images are not on this machine")
    train, test = bottles(View(128))
    detector, losses = trained(train, backbone="resnet18", weights=str(trunk), epochs=8)
    assert losses[-1] < 0.5 * losses[0]
    assert image_auroc(detector, test) > 0.8
