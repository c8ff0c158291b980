import math

import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import reconpatch
from iadbe.detectors.reconpatch import ReConPatch, contextual_similarity, relaxed_contrastive_loss, similarity
from iadbe.errors import BadConfig


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def fitted(pixels, seed=0, **params):
    detector, losses = ReConPatch(**{"backbone": "resnet10t", "layers": (1, 2), "weights": "none", **params}), []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(pixels), np.random.default_rng(seed))
    return detector, losses


def reference_contextual_similarity(points, k):
    count = len(points)
    apart = torch.cdist(points, points)
    near = [set(sorted(range(count), key=lambda j: float(apart[i, j]))[:k]) for i in range(count)]
    half = [set(sorted(range(count), key=lambda j: float(apart[i, j]))[: k // 2]) for i in range(count)]
    first = [[len(near[i] & near[j]) / k if j in near[i] else 0 for j in range(count)] for i in range(count)]
    mutual = [[j for j in half[i] if i in half[j]] for i in range(count)]
    second = [[sum(first[m][j] for m in mutual[i]) / len(mutual[i]) for j in range(count)] for i in range(count)]
    return torch.tensor([[(second[i][j] + second[j][i]) / 2 for j in range(count)] for i in range(count)])


@pytest.mark.parametrize("k", [2, 5])
def test_contextual_similarity_equals_a_slow_version(k):
    points = drawn(14, 3).double()
    found = contextual_similarity(torch.cdist(points, points).square(), k)
    torch.testing.assert_close(found.float(), reference_contextual_similarity(points, k))


def test_similarity_mixes_pairwise_and_contextual():
    points = drawn(9, 4)
    square = torch.cdist(points.double(), points.double()).square().float()
    found = similarity(points, 3, 0.3, 2.0)
    torch.testing.assert_close(
        found, 0.3 * (-square / 2).exp() + 0.7 * contextual_similarity(square, 3), rtol=1e-4, atol=1e-5
    )
    assert torch.equal(found, found.T)


def test_the_relaxed_contrastive_loss_equals_a_slow_version():
    points, similar = drawn(5, 3), torch.rand(5, 5, generator=torch.Generator().manual_seed(1))
    total = 0.0
    for i in range(5):
        apart = [math.dist(points[i].tolist(), q.tolist()) for q in points]
        for j in range(5):
            relative = apart[j] / (sum(apart) / 5)
            w = float(similar[i, j])
            total += w * relative**2 + (1 - w) * max(0.8 - relative, 0) ** 2 if i != j else (1 - w) * 0.8**2
    assert float(relaxed_contrastive_loss(points, similar, 0.8)) == pytest.approx(total / 5, rel=1e-4)


def test_the_loss_separates_two_groups():
    points = drawn(20, 4).requires_grad_()
    group = torch.arange(20) % 2
    similar = (group[:, None] == group).float()
    optimizer = torch.optim.Adam([points], 0.05)
    for _ in range(100):
        reconpatch.step(optimizer, relaxed_contrastive_loss(points, similar, 1.0))
    apart = torch.cdist(points, points).detach()
    within = apart[(similar == 1) & ~torch.eye(20, dtype=torch.bool)]
    assert float(within.mean()) < 0.2 * float(apart[similar == 0].mean())


def test_the_training_loss_falls():
    """The loss falls although the targets of the EMA copy move."""
    detector, losses = fitted(parts(6), epochs=12, batch=6, patches=256, learning_rate=1e-3, dims=32, contrast_dims=32)
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.92 * losses[0]
    assert detector.bank.shape[1] == 32


def test_the_memory_bank_holds_the_representation():
    detector, _ = fitted(parts(4), epochs=1, coreset=1.0, dims=16, contrast_dims=8)
    shown = batch(parts(4))
    rows = reconpatch.flattened(detector.level(detector._patches(shown)))
    torch.testing.assert_close(detector.bank, detector.representation(rows).detach(), rtol=1e-4, atol=1e-4)
    assert float(detector.predict(shown).score.max()) < 1e-3


@pytest.mark.parametrize("backbone", ["resnet10t", "tf_efficientnet_lite0"])
def test_rescaling_can_be_switched_off(backbone):
    """The paper compares the features as they are."""
    assert ReConPatch.paper_params["rescale"] is False
    params = {"backbone": backbone, "epochs": 1, "dims": 8, "contrast_dims": 8, "coreset": 1.0}
    detector, _ = fitted(parts(2), **params)
    features = detector._patches(batch(parts(2)))
    assert float(detector.level(features).square().mean().sqrt()) == pytest.approx(0.2, rel=1e-3)
    plain, _ = fitted(parts(2), **params, rescale=False)
    assert float(plain.level.factor) == 1
    rows = reconpatch.flattened(features)
    torch.testing.assert_close(plain.bank, plain.representation(rows).detach(), rtol=1e-4, atol=1e-4)


def test_a_dent_is_detected():
    detector, _ = fitted(
        parts(8), backbone="tf_efficientnet_lite0", layers=(1, 2), weights="auto", epochs=2, coreset=0.1
    )
    good, bad = (detector.predict(batch(parts(6, seed=s, defective=d))).score for s, d in ((2, False), (3, True)))
    assert (bad[:, None] > good).float().mean() > 0.95


def test_a_spent_budget_ends_the_training_only():
    with progress.budget(0):
        detector, losses = fitted(parts(2), dims=16, contrast_dims=8)
    assert losses == []
    assert len(detector.bank)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"coreset": 0.0}, {"alpha": 1.1}, {"bandwidth": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        ReConPatch("resnet10t", (1,), "none", **wrong)
