import numpy as np
import pytest
import torch

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import cfa
from iadbe.detectors.cfa import CFA
from iadbe.errors import BadConfig

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none"}


def fitted(pixels, seed=0, **params):
    detector, losses = CFA(**{**SMALL, **params}), []
    with progress.listening(lambda r: losses.append(r.value) if r.phase == "loss" else None):
        detector.fit(images(pixels), np.random.default_rng(seed))
    return detector, losses


def loss_by_loops(rows, centres, radius, margin):
    attraction, repulsion = 0.0, 0.0
    for row in rows:
        squares = sorted(float((row - c).square().sum()) for c in centres)
        attraction += sum(max(0, d - radius**2) for d in squares[:3]) / 3
        repulsion += sum(max(0, radius**2 - d - margin) for d in squares[3:6]) / 3
    return 1000 * (attraction + repulsion) / len(rows)


@pytest.mark.parametrize("radius", [0.01, 1.5, 4.0])
def test_the_loss_equals_the_papers_equations(radius):
    source = torch.Generator().manual_seed(0)
    detector = CFA(**SMALL)
    detector.centres = torch.randn(12, 4, generator=source)
    detector.radius.data.fill_(radius)
    rows = torch.randn(9, 4, generator=source)
    expected = loss_by_loops(rows.double(), detector.centres.double(), radius, 0.1)
    assert float(detector._loss(rows).detach()) == pytest.approx(expected, rel=1e-4)


def test_patches_inside_the_radius_are_not_attracted_and_the_next_centres_repel():
    detector = CFA(**SMALL, attract=1, repel=1)
    detector.centres = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    detector.radius.data.fill_(2.0)
    row = torch.tensor([[0.2, 0.0]], requires_grad=True)
    detector._loss(row).backward()
    assert float(row.grad[0, 0]) > 0  # downhill is away from the second centre
    assert float(detector.radius.grad) > 0  # and to a smaller sphere


def test_centres_are_the_mean_of_each_position():
    detector, _ = fitted(parts(5), epochs=1, learning_rate=1e-12)
    described = detector._descriptors(detector._stacked(batch(parts(5)))).detach()
    torch.testing.assert_close(detector.centres, cfa.flattened(described.mean(0)[None]), rtol=1e-4, atol=1e-4)


def test_centres_can_be_clustered_and_channels_divided():
    whole, _ = fitted(parts(2), epochs=1)
    few, _ = fitted(parts(2), epochs=1, gamma_c=4, gamma_d=2)
    assert len(few.centres) == len(whole.centres) // 4
    assert few.centres.shape[1] == whole.centres.shape[1] // 2


def test_normal_patches_approach_the_centres_which_stay():
    train, pretrained = parts(6), {"backbone": "tf_efficientnet_lite0", "weights": "auto"}
    before, _ = fitted(train, epochs=1, learning_rate=1e-12, **pretrained)
    after, losses = fitted(train, epochs=40, **pretrained)
    torch.testing.assert_close(after.centres, before.centres)
    assert np.mean(losses[-4:]) < 0.7 * np.mean(losses[:2])
    assert float(after.radius.detach()) > 1e-3  # it is trained


def test_the_score_is_the_nearest_distance_times_its_softmin_weight():
    detector, _ = fitted(parts(4), epochs=1, sigma=0.0)
    shown = batch(parts(1, seed=2, defective=True))
    rows = cfa.flattened(detector._descriptors(detector._stacked(shown))).detach()
    nearest = torch.cdist(rows.double(), detector.centres.double()).sort(1).values[:, :3]
    expected = (nearest[:, 0] * (-nearest[:, 0]).exp() / (-nearest).exp().sum(1)).view(1, 16, 16)
    found = detector.predict(shown)
    torch.testing.assert_close(found.map, cfa.upsampled(expected.float(), 64, 0.0), rtol=1e-3, atol=1e-4)
    assert torch.equal(found.score, found.map.amax((1, 2)))


@pytest.mark.parametrize(("rescale", "size"), [(True, 0.2), (False, None)])
def test_features_are_rescaled_or_left_as_they_are(rescale, size):
    detector, _ = fitted(parts(3), epochs=1, rescale=rescale)
    features = detector._stacked(batch(parts(3)))
    expected = features.square().mean().sqrt() if size is None else torch.tensor(size)
    torch.testing.assert_close(detector.level(features).square().mean().sqrt(), expected)
    assert CFA.paper_params["rescale"] is False  # the authors do not


def test_a_dent_is_found():
    detector, _ = fitted(parts(12), backbone="tf_efficientnet_lite0", layers=(1, 2, 3), weights="auto", epochs=4)
    good, bad = (detector.predict(batch(parts(6, seed=s, defective=d))).score for s, d in ((2, False), (3, True)))
    assert (bad[:, None] > good).float().mean() > 0.95


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"gamma_c": 0}, {"radius": 0.0}, {"attract": 0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        CFA(**SMALL, **wrong)
