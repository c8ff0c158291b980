from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe import progress
from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.detectors import regad
from iadbe.detectors.regad import COPIES, RegAD, augmented, registration_loss
from iadbe.errors import BadConfig
from iadbe.types import TrainingImage

SMALL = {"backbone": "resnet10t", "layers": (2, 3), "weights": "none"}
ALL = {**SMALL, "layers": (1, 2, 3)}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(RegAD(**{**SMALL, **params}), train, seed)


def untrained(**params):
    """Return a detector for images of 64 x 64."""
    detector = RegAD(**{**SMALL, **params})
    detector.registration = regad._Registration(detector.backbone, (64, 64), False)
    return detector


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(8)), epochs=12, learning_rate=0.02, **ALL)


def ramp():
    line = torch.linspace(0, 1, 64)
    return torch.stack([line.expand(64, 64), line[:, None].expand(64, 64), torch.zeros(64, 64)])[None]


def test_before_training_the_transformers_are_the_identity():
    detector, shown = untrained(**ALL), batch(parts(2))
    with torch.no_grad():
        found, turns = detector.registration.eval()(shown.image)
    for features, plain in zip(found, detector.backbone(shown), strict=True):
        torch.testing.assert_close(features, plain, rtol=1e-3, atol=1e-3)
    assert all(torch.equal(turn, torch.eye(2).expand(2, 2, 2)) for turn in turns)


def test_features_are_transformed_back():
    """With stages that are the identity, the maps come back to where they were, up to interpolation."""
    detector = untrained(**ALL)
    network = detector.registration
    for transformer, parameters in zip(
        network.transformers, ([0.3, 0.9, 0.9], [-0.2, 0.8, 0.9], [0.1, 1, 1]), strict=True
    ):
        transformer.regression[2].bias.data = torch.tensor(parameters)
    turns = [transformer.regression[2].bias.detach() for transformer in network.transformers]
    flat = nn.Identity()
    flat.forward_intermediates = lambda x, **_: [
        a := network.network.one(x),
        b := network.network.two(a),
        network.network.three(b),
    ]
    flat.one, flat.two, flat.three = nn.Identity(), nn.Identity(), nn.Identity()
    network.network, network.stages = flat, ["one", "two", "three"]
    for transformer, parameters in zip(network.transformers, turns, strict=True):
        transformer.forward = lambda x, d=parameters: scale_and_rotation(d).expand(len(x), 2, 2)
    network.mean, network.std = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    found, _ = network.eval()(ramp())
    middle = (..., slice(26, 38), slice(26, 38))
    assert (found[0] - ramp())[middle].abs().max() > 0.02
    for features in network.inverse_transformed(ramp()):
        torch.testing.assert_close(features[middle], ramp()[middle], rtol=0, atol=2e-3)


def scale_and_rotation(parameters):
    angle, horizontal, vertical = parameters
    rotation = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return rotation @ torch.diag(torch.stack([horizontal, vertical]))


def test_a_transformer_scales_and_then_rotates():
    transformer = untrained().registration.transformers[0]
    transformer.regression[2].bias.data = torch.tensor([0.4, 0.5, 2.0])
    found = transformer.eval()(torch.rand(2, 128, 8, 8))
    torch.testing.assert_close(found, scale_and_rotation(torch.tensor([0.4, 0.5, 2.0])).expand(2, 2, 2))


def test_twenty_two_copies_are_all_different():
    image = batch(parts(1, defective=True)).image
    copies = [augmented(image, which) for which in range(COPIES)]
    assert all(c.shape == image.shape and float(c.min()) >= 0 and float(c.max()) <= 1 for c in copies)
    assert min(float((a - b).abs().max()) for i, a in enumerate(copies) for b in copies[:i]) > 0.01
    assert torch.equal(copies[0], image)
    assert torch.equal(copies[-2], image.flip(3))
    assert torch.equal(copies[-1][:, 0], copies[-1][:, 2])


@pytest.mark.parametrize(("count", "copies"), [(1, 22), (16, 22), (17, 1)])
def test_only_up_to_16_supports_are_copied(count, copies):
    detector = untrained()
    detector._estimate(images(parts(count)))
    assert int(detector.gaussians.count) == count * copies


def test_the_distance_is_mahalanobis_of_the_inverse_transformed_features(fitted):
    detector, _ = fitted
    stacks = [
        detector.registration.inverse_transformed(augmented(batch(parts(8)).image, which)) for which in range(COPIES)
    ]
    new = detector.registration.inverse_transformed(batch(parts(1, seed=1)).image)

    def vector(layers, row, column):
        return torch.cat([f[:, :, row * f.shape[2] // 16, column * f.shape[3] // 16] for f in layers], 1)

    distance = detector.gaussians.distance(new)
    for place in ((0, 0), (7, 9), (15, 3)):
        known = torch.cat([vector(s, *place) for s in stacks]).double().numpy()
        step = vector(new, *place)[0].double().numpy() - known.mean(0)
        covariance = np.cov(known, rowvar=False) + 0.01 * np.eye(len(step))
        assert float(distance[0][place]) == pytest.approx(np.sqrt(step @ np.linalg.solve(covariance, step)), rel=1e-2)


def test_the_registration_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 12
    assert losses[-1] < losses[0] - 0.2
    assert -1 <= losses[-1] < -0.3


def test_registration_loss_is_a_negative_cosine_with_stop_gradient():
    network = SimpleNamespace(encoder=nn.Conv2d(4, 4, 1, bias=False), predictor=nn.Identity())
    one, two = torch.rand(3, 4, 2, 2), torch.rand(3, 4, 2, 2)
    ends = network.encoder(one).detach(), network.encoder(two).detach()
    torch.testing.assert_close(registration_loss(network, one, two).detach(), -F.cosine_similarity(*ends, dim=1).mean())
    assert float(registration_loss(network, one, one).detach()) == pytest.approx(-1)
    network.predictor = lambda x: x.detach() * 0 + 1  # a gradient could come from the target only
    assert not registration_loss(network, one, two).requires_grad


def test_an_update_keeps_the_registration(fitted):
    detector, _ = trained(images(parts(4)), epochs=1)
    before = {k: v.clone() for k, v in detector.registration.state_dict().items()}
    mean = detector.gaussians.mean.clone()
    detector.update(images(parts(2, seed=5)), np.random.default_rng(1))
    assert all(torch.equal(before[k], v) for k, v in detector.registration.state_dict().items())
    assert int(detector.gaussians.count) == 2 * COPIES
    assert not torch.equal(detector.gaussians.mean, mean)


def test_early_layers_are_trained_on_request_only():
    for train_early_layers in (False, True):
        detector, _ = trained(images(parts(4)), epochs=2, train_early_layers=train_early_layers, learning_rate=0.1)
        start, end = detector.backbone.network.state_dict(), detector.registration.network.state_dict()
        moved = {k for k, v in start.items() if not torch.equal(v, end[k])}
        assert any(k.startswith("layer3") for k in moved)
        assert any(k.startswith(("conv1", "bn1", "layer1", "layer2")) for k in moved) is train_early_layers


class RecordingImages(Images):
    """Images that record which of them were requested together."""

    requests: list

    def read(self, chunks, *how):
        self.requests += [[self.items[i].sample for i in chunk] for chunk in chunks]
        return super().read(chunks, *how)


def test_a_batch_has_images_of_one_category(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        regad, "registration_loss", lambda n, q, s: sizes.append(len(q)) or n.encoder[0].weight.sum() * 0
    )
    toy = Toy()
    samples = [[s for s in toy.samples() if s.category == c and s.split == "train"] for c in ("metal", "fabric")]
    recording = RecordingImages(toy, [TrainingImage(s) for s in (*samples[0][:5], *samples[1][:1])], View(64))
    recording.requests = []
    detector = untrained(epochs=3, batch=3)
    detector._learn(recording, np.random.default_rng(0))
    assert all(len({s.category for s in together}) == 1 for together in recording.requests)
    assert sorted(sizes) == sorted(3 * [3, 2, 2])  # a single image comes with a copy of itself
    shown = [s.id for together in recording.requests for s in together]
    assert all(shown.count(e.sample.id) == 3 for e in recording.items)


def test_supports_are_other_images_of_the_batch(monkeypatch):
    seen = []
    monkeypatch.setattr(
        regad, "registration_loss", lambda n, q, s: seen.append((q, s)) or n.encoder[0].weight.sum() * 0
    )
    trained(images(parts(5)), epochs=1, supports=2)
    query, support = seen[0]
    torch.testing.assert_close(support, (query.roll(-1, 0) + query.roll(-2, 0)) / 2)


def test_a_spent_budget_ends_the_training():
    with progress.budget(0):
        detector, losses = trained(images(parts(3)))
    assert losses == []
    assert torch.isfinite(detector.predict(batch(parts(1))).score).all()


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"supports": 0}, {"batch": 1}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must be above 0"):
        RegAD(**SMALL, **wrong)


def test_transformers_are_refused():
    with pytest.raises(BadConfig, match="convolutional network; test_vit is none"):
        RegAD("test_vit", (1, 2), "none")


@pytest.mark.slow
def test_four_real_bottles_are_enough():
    train, test = bottles(View(128))
    detector = RegAD(epochs=10)
    detector.fit(train.subset(range(4)), np.random.default_rng(0))
    assert image_auroc(detector, test) > 0.8
