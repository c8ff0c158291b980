from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.detectors.csflow import CSFlow, downscaled
from iadbe.errors import BadConfig
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore

SMALL = {"backbone": "resnet10t", "layer": 2, "weights": "none", "width": 8, "batch": 4}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(CSFlow(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), layer=2, width=16, epochs=12, batch=8, learning_rate=4e-3)


def test_it_learns_and_finds(fitted):
    detector, losses = fitted
    assert len(losses) == 12 * 2
    assert losses[0] == pytest.approx(0.5, abs=0.1)  # standardised values before any training
    assert np.mean(losses[-4:]) < 0.95 * losses[0]
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.95


@torch.no_grad()
def test_the_flow_is_invertible_and_the_score_is_the_mean_of_z_squared(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    features = detector._features(shown)
    z, _ = detector.flow(features)
    back = z
    for permutations, coupling in reversed(list(zip(detector.flow.permutations, detector.flow.couplings, strict=True))):
        back = [p.inverse(m) for p, m in zip(permutations, coupling.inverse(back), strict=True)]
    for standard, m, f in zip(detector.flow.standards, back, features, strict=True):
        torch.testing.assert_close(standard.inverse(m), f, rtol=1e-3, atol=1e-2)
    found = detector.predict(shown)
    values = torch.cat([m.reshape(2, -1) for m in z], 1)
    torch.testing.assert_close(found.score, (values**2).mean(1))
    fine = (z[0] ** 2).mean(1, keepdim=True)
    torch.testing.assert_close(found.map, F.interpolate(fine, (64, 64), mode="bilinear", align_corners=False)[:, 0])


@torch.no_grad()
def test_every_scale_affects_the_others():
    detector = CSFlow(**{**SMALL, "blocks": 1})
    maps = [torch.randn(1, 128, side, side) for side in (8, 4, 2)]
    untouched, _ = detector.flow(maps)
    for gains in (p for n, p in detector.flow.named_parameters() if n.endswith("gains")):
        assert torch.equal(gains, torch.zeros(3))
        nn.init.ones_(gains)
    plain, _ = detector.flow(maps)
    assert not torch.allclose(plain[0], untouched[0])
    for changed in range(3):
        other = [m + (k == changed) for k, m in enumerate(maps)]
        moved = [not torch.allclose(a, b) for a, b in zip(detector.flow(other)[0], plain, strict=True)]
        assert moved == [True] * 3  # neighbours directly, the far one through the second half of the coupling


def test_subnets_are_those_of_the_paper():
    detector = CSFlow(weights="none", width=32)
    nets = [c.of_first for c in detector.flow.couplings]
    assert [{m.kernel_size for m in n.modules() if isinstance(m, nn.Conv2d)} for n in nets] == [{(3, 3)}] * 3 + [
        {(5, 5)}
    ]
    assert [len(n) for n in (nets[0].first, nets[0].last, nets[0].up, nets[0].down)] == [3, 3, 2, 2]
    assert {(m.in_channels, m.out_channels) for m in nets[0].first} == {(160, 32)}
    assert {c.clamp for c in detector.flow.couplings} == {3.0}


def test_downscaled_images_have_keys_of_their_own():
    shown = batch(parts(2))
    assert downscaled(shown, 1) is shown
    half = downscaled(shown, 2)
    assert half.image.shape == (2, 3, 32, 32)
    assert half.keys == tuple(f"{k}-32x32" for k in shown.keys)
    assert half.id == shown.id
    flat = replace(shown, image=torch.full((2, 3, 64, 64), 0.3), keys=None)
    torch.testing.assert_close(downscaled(flat, 4).image, torch.full((2, 3, 16, 16), 0.3))
    assert downscaled(flat, 4).keys is None


def test_epochs_run_the_backbone_once_per_image_and_scale(tmp_path):
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(images(parts(6)), epochs=3, **SMALL)
    assert counters.computed == 3 * 6
    assert counters.stored == 3 * 3 * 6


def test_gradients_are_clipped(monkeypatch):
    norms = []
    original = torch.optim.Adam.step

    def step(self, *args, **kwargs):
        original(self, *args, **kwargs)
        norms.append(float(torch.stack([p.grad.norm() for g in self.param_groups for p in g["params"]]).norm()))

    monkeypatch.setattr("iadbe.detectors.csflow.MAX_NORM", 1e-3)
    monkeypatch.setattr(torch.optim.Adam, "step", step)
    trained(images(parts(4)), epochs=2, **SMALL)
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-2)


def test_the_optimiser_is_the_authors(monkeypatch):
    """Adam with torch's own betas; (0.5, 0.9) are those of a re-implementation."""
    groups = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *a: groups.extend(self.param_groups) or original(self))
    trained(images(parts(2)), epochs=1, **SMALL)
    found = {key: groups[0][key] for key in ("lr", "betas", "eps", "weight_decay")}
    assert found == {"lr": 2e-4, "betas": (0.9, 0.999), "eps": 1e-4, "weight_decay": 1e-5}


def test_sizes_that_do_not_halve_exactly_are_interpolated():
    detector, _ = trained(images(parts(3, side=72)), epochs=2, **{**SMALL, "layer": 3})
    shown = batch(parts(2, side=72))
    assert [f.shape[-1] for f in detector._features(shown)] == [5, 3, 2]
    assert detector.predict(shown).map.shape == (2, 72, 72)


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"width": 0}, {"epochs": 0}, {"learning_rate": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        CSFlow(**{**SMALL, **wrong})
