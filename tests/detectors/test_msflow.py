import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.func import jacrev

import fitted_losses
from drawn_images import assert_dents_are_found, batch, images, parts
from iadbe.detectors.msflow import MSFlow, _MultiScaleFlow, product_map, schedule, sum_map
from iadbe.errors import BadConfig
from iadbe.layers.flows.coupling import AffineCoupling
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore

SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none", "blocks": (1, 2), "condition": 8}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(MSFlow(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=12, learning_rate=1e-3)


def test_it_learns_and_finds(fitted):
    detector, losses = fitted
    assert len(losses) == 12 * 2
    assert losses[-1] < 0.5 * losses[0]
    assert_dents_are_found(detector, shown=6)


@torch.no_grad()
def test_scores_order_images_like_the_papers(fitted):
    """By the mean of the largest 3 % of 1 - the product of the scales' likelihoods, relative to its maximum."""
    detector, _ = fitted
    shown = batch(parts(6, seed=2) + parts(2, seed=3, defective=True))
    z, _ = detector.flow([F.avg_pool2d(f, 3, 2, 1) for f in detector.backbone(shown)])
    total = torch.zeros(8, 64, 64, dtype=torch.float64)
    for m in z:
        log = -0.5 * (m.double() ** 2).mean(1, keepdim=True)
        total += F.interpolate(log, (64, 64), mode="bilinear", align_corners=False)[:, 0]
    paper = 1 - (total - total.amax((1, 2), keepdim=True)).exp()
    top = paper.flatten(1).sort(descending=True).values[:, : 64 * 64 * 3 // 100].mean(1)
    found = detector.predict(shown)
    torch.testing.assert_close(found.score.double(), -(1 - top).log(), rtol=1e-3, atol=1e-4)
    detector.combine = "product"
    torch.testing.assert_close(1 - (-detector.predict(shown).map.double()).exp(), paper, rtol=1e-3, atol=1e-4)
    detector.combine = "sum"


def test_maps_of_a_small_example():
    log_likelihoods = [torch.tensor([[[-1.0, -2.0], [-1.5, -1.0]]]), torch.tensor([[[-3.0]]])]
    e = [1, np.exp(-1), np.exp(-0.5), 1]
    torch.testing.assert_close(product_map(log_likelihoods, (2, 2)), torch.tensor([[[0.0, 1.0], [0.5, 0.0]]]))
    torch.testing.assert_close(sum_map(log_likelihoods, (2, 2)), torch.tensor([1 - x for x in e]).float().view(1, 2, 2))


def test_the_log_determinant_is_that_of_the_whole_flow():
    torch.manual_seed(0)
    shapes = [(6, 3, 3), (8, 2, 2), (10, 1, 1)]
    flow = _MultiScaleFlow((6, 8, 10), (1, 2, 1), 4).double()
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter)
    sizes = [int(np.prod(s)) for s in shapes]

    def z_of(flat):
        return flow([p.reshape(1, *s) for p, s in zip(flat.split(sizes), shapes, strict=True)])

    x = torch.randn(sum(sizes), dtype=torch.float64)
    jacobian = jacrev(lambda v: torch.cat([m.flatten() for m in z_of(v)[0]]))(x).detach()
    expected = torch.linalg.slogdet(jacobian)[1]
    torch.testing.assert_close(z_of(x)[1][0].detach(), expected, rtol=1e-6, atol=1e-6)
    fine, coarse = slice(0, sizes[0]), slice(sizes[0] + sizes[1], None)
    assert jacobian[fine, coarse].any()  # fusion: every scale depends on the others
    assert jacobian[coarse, fine].any()


def test_flows_are_those_of_the_paper():
    detector = MSFlow(weights="none")
    couplings = [[b for b in flow.layers if isinstance(b, AffineCoupling)] for flow in detector.flow.flows]
    assert [len(c) for c in couplings] == [2, 5, 8]
    assert {b.clamp for c in couplings for b in c} == {1.9}
    net = couplings[2][0].subnet
    assert (net.first.in_channels, net.extra.in_channels, net.first.out_channels) == (56, 64, 120)
    assert net.first.kernel_size == (3, 3)


def test_the_learning_rate_warms_up_and_decays_at_two_milestones():
    """As in the authors' newest code: from 0.1 over 12 of 100 epochs; a factor of 0.33 at epochs 70 and 90."""
    rates = [schedule(epoch / 100) for epoch in (0, 6, 12, 69, 70, 75, 89, 90, 100)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 0.33, 0.33, 0.33, 0.1089, 0.1089])


def test_epochs_run_the_backbone_once_per_image(tmp_path):
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        trained(images(parts(6)), epochs=3, **SMALL)
    assert counters.computed == 6
    assert counters.stored == 3 * 6


@pytest.mark.parametrize(
    "wrong", [{"blocks": (1, 2, 3)}, {"blocks": (0, 1)}, {"epochs": 0}, {"condition": 3}, {"combine": "max"}]
)
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match=next(iter(wrong))):
        MSFlow(**{**SMALL, **wrong})
