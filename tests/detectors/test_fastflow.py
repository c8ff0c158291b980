import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, dents_shown, images, parts
from iadbe.detectors.fastflow import FastFlow
from iadbe.errors import BadConfig
from iadbe.layers.flows.coupling import AffineCoupling
from iadbe.layers.flows.scaling import Standardisation
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore

QUICK = {"batch": 8, "blocks": 4}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(FastFlow(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=25)


def test_it_learns_a_likelihood(fitted):
    detector, losses = fitted
    assert len(losses) == 25 * 2
    assert losses[-1] < 0.8 * losses[0]
    good, bad = batch(parts(8, seed=2)), batch(parts(8, seed=3, defective=True))
    with torch.no_grad():
        spread = [float(z.square().mean()) for z, _ in detector._latent(good)]
    assert max(spread) < 2
    good, bad = detector.predict(good), detector.predict(bad)
    assert (bad.score[:, None] > good.score).float().mean() > 0.95


def test_a_dent_is_shown_where_it_is(fitted):
    detector, _ = fitted
    dented = parts(8, seed=3, defective=True)
    assert dents_shown(dented, detector.predict(batch(dented)).map, within=64 / 5) >= 6


@torch.no_grad()
def test_the_map_is_the_mean_of_the_layers_likelihoods(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    expected = torch.zeros(2, 64, 64)
    for f, flow in zip(detector.backbone(shown), detector.flows, strict=True):
        z, _ = flow(f)
        torch.testing.assert_close(flow.inverse(z), f, rtol=1e-3, atol=1e-2)  # the flow is invertible
        likelihood = torch.exp(-0.5 * (z**2).sum(1, keepdim=True) / z.shape[1])
        expected -= F.interpolate(likelihood, (64, 64), mode="bilinear", align_corners=False)[:, 0] / 2
    found = detector.predict(shown)
    torch.testing.assert_close(found.map, expected, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_steps_are_those_of_the_paper():
    def kernels(detector):
        steps = [b for b in detector.flows[0].layers if isinstance(b, AffineCoupling)]
        assert {b.clamp for b in steps} == {2.0}
        assert {b.subnet.first.kernel_size for b in steps} == {b.subnet.last.kernel_size for b in steps}
        return [b.subnet.first.kernel_size[0] for b in steps], steps[0].subnet.first

    found, first = kernels(FastFlow(weights="none"))
    assert found == [3, 1] * 4
    assert (first.in_channels, first.out_channels) == (20, 20)
    found, first = kernels(FastFlow(weights="none", pointwise=False, hidden=0.16))
    assert found == [3] * 8
    assert (first.in_channels, first.out_channels) == (20, 3)


def test_epochs_run_the_backbone_once_per_image(tmp_path):
    train = images(parts(6))
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(train, backbone="resnet10t", weights="none", epochs=4)
    assert counters.computed == 6
    assert counters.stored == 4 * 6


def test_features_are_standardised_by_the_training_images():
    train = parts(6)
    detector, _ = trained(images(train), epochs=1, backbone="resnet10t", weights="none")
    for layer, f in zip((flow.layers[0] for flow in detector.flows), detector.backbone(batch(train)), strict=True):
        assert isinstance(layer, Standardisation)
        torch.testing.assert_close(layer.mean, f.mean((0, 2, 3)))


def test_without_standardisation_every_map_is_layer_normalised():
    detector, _ = trained(images(parts(4)), epochs=1, backbone="resnet10t", weights="none", standardise=False)
    assert all(torch.equal(flow.layers[0].deviation, torch.ones(len(flow.layers[0].mean))) for flow in detector.flows)
    shown = batch(parts(2))
    before = detector.predict(shown).map
    detector.backbone.forward = lambda shown, original=detector.backbone.forward: [7 * f - 3 for f in original(shown)]
    torch.testing.assert_close(detector.predict(shown).map, before, rtol=1e-3, atol=1e-4)


def test_the_published_layer_norm_is_trained_per_channel_and_position():
    """Like nn.LayerNorm([C, h, w]) in the re-implementations, in the same optimiser as the flows."""
    assert FastFlow.paper_params["affine"] is True
    params = {"backbone": "resnet10t", "weights": "none", "layers": (1, 2), "standardise": False, "affine": True}
    detector, _ = trained(images(parts(4)), epochs=2, **params)
    assert [tuple(norm.weight.shape) for norm in detector.norms] == [(64, 16, 16), (128, 8, 8)]
    assert all((norm.weight != 1).any() and (norm.bias != 0).any() for norm in detector.norms)
    shown = batch(parts(2))
    first = detector.backbone(shown)[0]
    reference = torch.nn.LayerNorm([64, 16, 16])
    reference.load_state_dict(detector.norms[0].state_dict())
    with torch.no_grad():
        torch.testing.assert_close(detector._latent(shown)[0][0], detector.flows[0](reference(first))[0])
    loaded = FastFlow(**{**QUICK, **params})
    loaded.load_tensors(detector.state_dict())
    assert torch.equal(loaded.predict(shown).map, detector.predict(shown).map)


def test_a_trained_scale_needs_layer_normalisation():
    with pytest.raises(BadConfig, match="standardise=false"):
        FastFlow(weights="none", affine=True)


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"epochs": 0}, {"hidden": 0.0}, {"learning_rate": -1.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must all be above 0"):
        FastFlow(weights="none", **wrong)
