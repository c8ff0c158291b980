import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import binom
from torch.func import jacrev

import fitted_losses
from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.detectors import uflow
from iadbe.detectors.uflow import UFlow, _UShape, log_binomial_tail
from iadbe.errors import BadConfig
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore
from iadbe.registry import card

SMALL = {"backbone": "resnet10t", "weights": "none"}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(UFlow(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=14, batch=8)


def test_the_training_loss_falls_and_dents_are_detected(fitted):
    detector, losses = fitted
    assert len(losses) == 14 * 2
    assert losses[-1] < 0.85 * losses[0]
    good, bad = batch(parts(8, seed=2)), batch(parts(8, seed=3, defective=True))
    for kind in ("likelihood", "nfa"):
        detector.score_kind = kind
        score = [detector.predict(shown).score for shown in (good, bad)]
        assert (score[1][:, None] > score[0]).float().mean() > 0.9
    detector.score_kind = "likelihood"


def test_the_learning_rate_is_constant(monkeypatch):
    rates = []
    original = uflow.step
    monkeypatch.setattr(uflow, "step", lambda o, loss: rates.append(o.param_groups[0]["lr"]) or original(o, loss))
    trained(images(parts(4)), epochs=3, batch=2, learning_rate=1e-4, **SMALL)
    assert rates == [1e-4] * 6


@torch.no_grad()
def test_the_map_is_the_negative_mean_likelihood_over_scales(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    z, _ = detector.flow(detector._features(shown))
    assert [tuple(m.shape[1:]) for m in z] == [(40 + 14, 8, 8), (56, 4, 4)]
    total = torch.zeros(2, 64, 64)
    for m in z:
        likelihood = torch.exp(-0.5 * (m**2).mean(1, keepdim=True))
        total += F.interpolate(likelihood, (64, 64), mode="bilinear", align_corners=False)[:, 0]
    found = detector.predict(shown)
    torch.testing.assert_close(found.map, -total / 2)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_the_flow_is_invertible_and_its_log_det_is_autograds():
    torch.manual_seed(0)
    shapes = [(4, 4, 4), (8, 2, 2), (9, 1, 1)]
    flow = _UShape((4, 8, 9), [2, 2], 2, 1.0).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter)
    sizes = [math.prod(s) for s in shapes]

    def cut(flat):
        return [p.reshape(1, *s) for p, s in zip(flat.split(sizes), shapes, strict=True)]

    x = torch.randn(sum(sizes), dtype=torch.float64)
    with torch.no_grad():
        z, log_dets = flow(cut(x))
        assert sum(m.numel() for m in z) == len(x)
        for back, before in zip(flow.inverse(z), cut(x), strict=True):
            torch.testing.assert_close(back, before)
    jacobian = jacrev(lambda v: torch.cat([m.flatten() for m in flow(cut(v))[0]]))(x).detach()
    expected = torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(sum(d.sum() for d in log_dets), expected, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_fine_map_depends_on_the_coarse_one():
    flow = _UShape((8, 16), [2], 2, 1.0)
    fine, coarse = torch.randn(1, 8, 4, 4), torch.randn(1, 16, 2, 2)
    before, other, moved = flow([fine, coarse])[0], flow([fine, coarse + 1])[0], flow([fine + 1, coarse])[0]
    assert not torch.allclose(other[0], before[0])
    assert not torch.allclose(moved[0], before[0])
    assert torch.equal(moved[1], before[1])  # but not the other way round


@pytest.mark.parametrize("reach", [1, 3])
def test_the_tail_is_that_of_the_binomial_distribution(reach):
    z = torch.randn(2, 1, 9, 9, generator=torch.Generator().manual_seed(0)) * 1.5
    found = log_binomial_tail(z, reach)
    side = 2 * reach + 1
    candidates = np.pad(z[:, 0].numpy(), ((0, 0), (reach, reach), (reach, reach)), mode="reflect") ** 2 >= 0.4549364
    for i, row, column in np.ndindex(2, 9, 9):
        count = candidates[i, row : row + side, column : column + side].sum()
        expected = binom.logsf(count - 1, side**2, 0.5) / math.log(10)
        assert float(found[i, row, column]) == pytest.approx(expected, abs=1e-4)


def test_noise_has_a_high_nfa_and_large_values_a_low_one():
    z = torch.randn(1, 200, 20, 20, generator=torch.Generator().manual_seed(0))
    z[:, :, 8:14, 8:14] *= 10
    tail = log_binomial_tail(z, 3)[0]
    assert tail.argmin() // 20 in range(8, 14)
    assert float(tail.min()) < -5
    assert float(tail[:4, :4].min()) > -1
    assert float(log_binomial_tail(torch.full((1, 3, 5, 5), 9.0), 3)[0, 2, 2]) == pytest.approx(
        49 * math.log10(0.5), rel=1e-4
    )
    assert float(log_binomial_tail(torch.zeros(1, 3, 5, 5), 3).max()) == 0


def test_features_are_computed_once_per_image(tmp_path):
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(images(parts(6)), epochs=3, **SMALL)
    assert counters.computed == 6
    assert counters.stored == 3 * 6


def test_a_view_that_the_coarsest_stride_does_not_divide_is_enlarged_with_a_note():
    notes = []
    shown = images(parts(2, side=72))
    with progress.collecting_notes(notes):
        detector = trained(shown, epochs=1, **SMALL)[0]
    assert [f.shape[-1] for f in detector._features(next(shown.batches(2)))] == [10, 5]
    assert notes == [
        "uflow sees images of 80 x 80 pixels instead of 72 x 72 (height x width): 16 must divide both sides. Maps and "
        "metrics have the size of the view."
    ]


def test_unsuitable_layers_are_refused():
    with pytest.raises(BadConfig, match="finest layer first"):
        UFlow(layers=(3, 2), **SMALL)


@pytest.mark.parametrize("wrong", [{"blocks": 0}, {"epochs": 0}, {"score": "both"}, {"hidden": 0.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        UFlow(**{**SMALL, **wrong})


def test_the_categories_of_the_paper_have_valid_parameters():
    by_category = card("detectors", "uflow").get("paper_by_category")
    assert len(by_category) == 15
    for params in by_category.values():
        UFlow(**{**params, **SMALL})
    assert by_category["mvtec_ad/tile"] == {"learning_rate": 0.006046, "epochs": 200, "batch": 30}
    assert by_category["mvtec_ad/screw"]["epochs"] == 500
