import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors import cflow
from iadbe.detectors.cflow import CFLOW, schedule
from iadbe.errors import BadConfig
from iadbe.layers.blocks.positional_encoding import sinusoidal_encoding
from iadbe.layers.flows.coupling import AffineCoupling
from iadbe.layers.flows.mixing import Rotation
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none", "blocks": 2, "condition": 8}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(CFLOW(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    params = {"layers": (2, 3), "blocks": 4, "epochs": 12, "batch": 8, "share": 1.0, "vectors": 128}
    return trained(images(parts(16)), learning_rate=1e-3, **params)


def test_it_learns_and_finds(fitted):
    detector, losses = fitted
    assert len(losses) == 12 * 2 * (4 + 1)  # 8 x 64 and 8 x 16 vectors, by 128
    assert np.mean(losses[-10:]) < 0.92 * np.mean(losses[:10])
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.95


@torch.no_grad()
def test_the_map_orders_pixels_like_the_papers_map(fitted):
    """A constant minus the sum of the layers' likelihoods, each relative to its maximum, position by position."""
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    total = torch.zeros(2, 64, 64)
    for f, flow, maximum in zip(detector.backbone(shown), detector.flows, detector.max_log_likelihood, strict=True):
        encodings = sinusoidal_encoding(128, *f.shape[-2:])
        log = torch.empty(2, *f.shape[-2:])
        for i, row, column in np.ndindex(log.shape):
            z, log_det = flow(f[i, :, row, column][None], encodings[:, row, column][None])
            values = z.shape[1]
            log[i, row, column] = (-0.5 * values * math.log(2 * math.pi) - 0.5 * (z**2).sum() + log_det[0]) / values
        total += F.interpolate((log - maximum).exp()[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    found = detector.predict(shown)
    torch.testing.assert_close(found.map, -(total / 2).log(), rtol=1e-3, atol=1e-3)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_the_maximum_log_likelihood_is_that_of_the_training_images(fitted):
    detector, _ = fitted
    layers = detector._log_likelihoods(batch(parts(16)))
    torch.testing.assert_close(
        torch.stack([layer.max() for layer in layers]), detector.max_log_likelihood, rtol=1e-4, atol=1e-4
    )


def test_couplings_are_those_of_the_paper():
    detector = CFLOW(weights="none")
    couplings = [b for b in detector.flows[1].layers if isinstance(b, AffineCoupling)]
    assert len(couplings) == 8
    assert sum(isinstance(b, Rotation) for b in detector.flows[1].layers) == 8
    assert {b.clamp for b in couplings} == {1.9}
    first, last = couplings[0].subnet.first, couplings[0].subnet.last
    assert (first.in_features, first.out_features, last.out_features) == (56 + 128, 2 * (56 + 128), 112)


@pytest.mark.parametrize(("share", "count"), [(1.0, 60), (0.25, 15), (0.001, 1)])
def test_vectors_are_sampled_without_replacement_with_their_own_position(share, count):
    detector = CFLOW(**{**SMALL, "share": share, "vectors": 16})
    grid = torch.arange(3 * 4 * 5.0).view(3, 1, 4, 5)
    sampled = list(detector._sampled(grid, np.random.default_rng(0)))
    assert [len(rows) for rows, _ in sampled] == [16] * (count // 16) + [count % 16] * (count % 16 > 0)
    rows, encodings = (torch.cat(part) for part in zip(*sampled, strict=True))
    assert len(rows.unique()) == count
    encoding = sinusoidal_encoding(8, 4, 5).flatten(1).T
    assert torch.equal(encodings, encoding[rows[:, 0].long() % 20])


def test_the_same_vector_is_likelier_at_its_own_position(fitted):
    """Background features moved onto the part are anomalous only because of their position."""
    detector, _ = fitted
    shown = batch(parts(4, seed=2))
    features = detector.backbone(shown)
    before = [layer.mean() for layer in detector._log_likelihoods(shown)]
    detector.backbone.forward = lambda _: [f.roll((f.shape[2] // 2, f.shape[3] // 2), (2, 3)) for f in features]
    moved = [layer.mean() for layer in detector._log_likelihoods(shown)]
    del detector.backbone.forward
    assert all(m < b for m, b in zip(moved, before, strict=True))


def test_the_learning_rate_rises_and_falls():
    assert schedule(0) == pytest.approx(0.1)
    warm = 1e-3 + (1 - 1e-3) * (1 + math.cos(math.pi * 2 / 25)) / 2
    assert schedule(2 / 25) == pytest.approx(warm)
    assert schedule(1 / 25) == pytest.approx((0.1 + warm) / 2)
    assert schedule(0.5) == pytest.approx((1 + 1e-3) / 2)
    assert schedule(1) == pytest.approx(1e-3)


def test_epochs_run_the_backbone_once_per_image(tmp_path):
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(images(parts(6)), epochs=3, **SMALL)
    assert counters.computed == 6
    assert counters.stored == (3 + 1) * 6


def test_training_images_are_rotated_by_at_most_the_given_angle(monkeypatch):
    """The authors rotate by up to 5 degrees; every epoch has other angles, and prediction none."""
    assert CFLOW.paper_params["rotation"] == 5.0
    angles = []
    monkeypatch.setattr(cflow, "each_rotated", lambda batch, degrees: angles.append(degrees) or batch)
    detector, _ = trained(images(parts(6)), epochs=8, rotation=5.0, **SMALL)
    drawn = torch.cat(angles)
    assert len(drawn.unique()) == len(drawn) == 8 * 6
    assert -5 <= float(drawn.min()) < -3 < 3 < float(drawn.max()) <= 5
    detector.predict(batch(parts(2)))
    assert len(torch.cat(angles)) == len(drawn)


def test_a_rotated_image_is_not_read_from_the_feature_store(tmp_path):
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(images(parts(4)), epochs=3, rotation=5.0, standardise=False, **SMALL)
    assert counters.computed == 3 * 4 + 4


@pytest.mark.parametrize(
    "wrong", [{"blocks": 0}, {"share": 0.0}, {"share": 1.5}, {"condition": 6}, {"vectors": 0}, {"rotation": 200.0}]
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        CFLOW(**{**SMALL, **wrong})
