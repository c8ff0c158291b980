import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, bottles, image_auroc, images, parts
from iadbe.data.images import Images, View
from iadbe.datasets.toy import Toy
from iadbe.detectors.dne import DNE
from iadbe.errors import BadConfig
from iadbe.layers.statistics.shrinkage import ShrunkGaussian, ledoit_wolf
from iadbe.types import TrainingImage

SMALL = {"backbone": "resnet10t", "layer": 2, "weights": "none", "batch": 4, "epochs": 1}
TOY = Toy()


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(DNE(**{**SMALL, **params}), train, seed)


def category(name, split, count):
    """Return toy images of a category at 64 pixels."""
    samples = [s for s in TOY.samples() if s.category == name and s.split == split]
    return Images(TOY, [TrainingImage(s) for s in samples[:: max(1, len(samples) // count)][:count]], View(64))


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), backbone="tf_efficientnet_lite0.in1k", layer=-1, weights="auto", epochs=8)


def test_the_training_loss_falls(fitted):
    _, losses = fitted
    assert len(losses) == 8 * 4
    assert losses[0] == pytest.approx(np.log(2), rel=1e-4)  # the head starts at 0
    assert np.mean(losses[-6:]) < 0.7 * losses[0]


def test_a_dent_is_detected(fitted):
    detector, _ = fitted
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9
    assert bad.map is None


def test_a_task_is_remembered_by_mean_covariance_and_number():
    detector, _ = trained(images(parts(6)))
    with torch.no_grad():
        rows = detector._embedded(batch(parts(6)))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(6))
    assert detector.counts.tolist() == [6]
    torch.testing.assert_close(detector.means, rows.mean(0, keepdim=True))
    torch.testing.assert_close(detector.covariances[0], ledoit_wolf(rows.double())[0].float(), rtol=1e-3, atol=1e-7)
    detector.update(images(parts(5, seed=1)), np.random.default_rng(1))
    assert detector.counts.tolist() == [6, 5]
    torch.testing.assert_close(detector.means[:1], rows.mean(0, keepdim=True))
    detector.fit(images(parts(3)), np.random.default_rng(0))
    assert detector.counts.tolist() == [3]


def test_the_score_is_the_distance_to_replayed_and_present_embeddings():
    """Once with the network's training switched off, in the paper's steps, sample by sample."""
    detector, _ = trained(images(parts(6)))
    detector._train = lambda train, rng: None
    mean, covariance = detector.means[0].double(), detector.covariances[0].double()
    detector.update(images(parts(5, seed=1)), np.random.default_rng(1))
    variances, axes = torch.linalg.eigh(covariance)
    source = torch.Generator().manual_seed(int(np.random.default_rng(1).integers(2**63)))
    standard = torch.randn(6, len(mean), generator=source, dtype=torch.float64)
    replayed = [mean + axes @ (variances.clamp(min=0).sqrt() * s) for s in standard]
    with torch.no_grad():
        present = detector._embedded(batch(parts(5, seed=1)))
        query = detector._embedded(batch(parts(4, seed=2)))
    rows = torch.stack([*(r.float() / r.float().norm() for r in replayed), *present])
    expected = ShrunkGaussian()
    expected.fit(rows)
    torch.testing.assert_close(
        detector.predict(batch(parts(4, seed=2))).score, expected.distance(query), rtol=1e-2, atol=1e-3
    )


def test_equal_images_have_no_covariance():
    detector, _ = trained(images(parts(1) * 3))
    assert float(detector.covariances.abs().max()) < 1e-9
    detector.update(images(parts(4)), np.random.default_rng(0))
    assert torch.isfinite(detector.predict(batch(parts(2))).score).all()


def test_the_second_task_does_not_erase_the_first():
    """Forgetting of the first category is below that of a naive refit, which is fitted to the second alone."""
    params = {"backbone": "tf_efficientnet_lite0.in1k", "layer": -1, "weights": "auto", "epochs": 3, "batch": 8}
    first, second = (category(name, "train", 24) for name in ("metal", "washer"))
    tests = [category(name, "test", 40) for name in ("metal", "washer")]
    detector, _ = trained(first, **params)
    before = image_auroc(detector, tests[0])
    detector.update(second, np.random.default_rng(1))
    naive, _ = trained(second, 1, **params)
    forgotten, naively = before - image_auroc(detector, tests[0]), before - image_auroc(naive, tests[0])
    assert forgotten < naively - 0.2
    assert image_auroc(detector, tests[1]) > image_auroc(naive, tests[1]) - 0.1


def test_batch_norms_keep_their_statistics_but_in_a_first_task_from_scratch():
    def statistics(detector):
        return [m.running_mean.clone() for m in detector.encoder.modules() if isinstance(m, nn.BatchNorm2d)]

    start = statistics(DNE(**SMALL))
    detector, _ = trained(images(parts(4)))
    first = statistics(detector)
    assert not all(torch.equal(a, b) for a, b in zip(start, first, strict=True))
    detector.update(images(parts(4, seed=5)), np.random.default_rng(0))
    assert all(torch.equal(a, b) for a, b in zip(first, statistics(detector), strict=True))
    pretrained = {"backbone": "tf_efficientnet_lite0.in1k", "layer": -1, "weights": "auto"}
    start = statistics(DNE(**{**SMALL, **pretrained}))
    found = statistics(trained(images(parts(4)), **pretrained)[0])
    assert all(torch.equal(a, b) for a, b in zip(start, found, strict=True))


def test_a_transformer_is_embedded_by_its_class_token():
    detector, losses = trained(images(parts(4)), backbone="vit_tiny_patch16_224", layer=-1)
    assert len(losses) == 1
    shown = batch(parts(2))
    token = detector.encoder.network.forward_features((shown.image - 0.5) / 0.5)[:, 0]
    with torch.no_grad():
        torch.testing.assert_close(detector._embedded(shown), F.normalize(token), rtol=1e-3, atol=1e-4)
    assert torch.isfinite(detector.predict(shown).score).all()
    assert DNE(**{**SMALL, "backbone": "vit_tiny_patch16_224", "layer": 3}).encoder.layers == (3,)


@pytest.mark.parametrize("wrong", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"layer": -2}])
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        DNE(**{**SMALL, **wrong})


@pytest.mark.slow
def test_real_bottles():
    train, test = bottles(View(128))
    detector, _ = trained(train, backbone="tf_efficientnet_lite0.in1k", layer=-1, weights="auto", epochs=6, batch=16)
    assert image_auroc(detector, test) > 0.85
