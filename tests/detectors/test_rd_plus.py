import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.rd_plus import RDPlus, projection_loss, with_simplex_noise
from iadbe.errors import BadConfig
from iadbe.layers.blocks.one_class_decoder import flattened_cosine_loss
from iadbe.layers.training.sinkhorn import sinkhorn_divergence


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(RDPlus(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=25, batch=8, accumulated=1)


def layers(seed, count=4):
    source = torch.Generator().manual_seed(seed)
    return [torch.randn(count, c, s, s, generator=source) for c, s in ((6, 16), (10, 4))]


@pytest.mark.parametrize("transport", [False, True])
def test_the_projection_loss_is_the_papers_formula(transport):
    noisy, of_noisy, of_normal = layers(0), layers(1), layers(2)
    of_normal[0] = 0.9 * noisy[0] + 0.4 * of_normal[0]  # alike, so the contrast counts
    expected = 0.0
    for n, pn, p in zip(noisy, of_noisy, of_normal, strict=True):
        contrast = reconstruction = moved = 0.0
        clouds = F.adaptive_avg_pool2d(p, min(8, p.shape[-1]))
        for i in range(4):
            a, b = n[i].flatten().double().numpy(), p[i].flatten().double().numpy()
            contrast += max(0, a @ b / np.linalg.norm(a) / np.linalg.norm(b) - 0.5) / 4
            for y in range(p.shape[2]):
                for x in range(p.shape[3]):
                    a, b = pn[i, :, y, x].double().numpy(), p[i, :, y, x].double().numpy()
                    share = 4 * p.shape[2] * p.shape[3]
                    reconstruction += (1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b)) / share
            one, other = (F.normalize(clouds[k].flatten(1).T, dim=1)[None] for k in (i, i - 1))
            moved += float(sinkhorn_divergence(one, other)[0]) / 4
        expected += 0.01 * reconstruction + 0.1 * contrast + transport * moved
    assert contrast == 0  # of the second layer: below the margin
    assert float(projection_loss(noisy, of_noisy, of_normal, transport)) == pytest.approx(expected / 1.11, rel=1e-3)


def test_the_loss_adds_a_fifth_of_it_to_the_distillation_and_trains_all_parts():
    detector = RDPlus("resnet10t", weights="none")
    source = torch.Generator().manual_seed(0)
    normal, noisy = (detector.backbone(torch.rand(2, 3, 64, 64, generator=source)) for _ in range(2))
    loss = detector._loss(normal, noisy)
    projected, of_noisy = detector._projected(normal), detector._projected(noisy)
    expected = flattened_cosine_loss(normal, detector.student(projected))
    expected = expected + 0.2 * projection_loss(noisy, of_noisy, projected)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    convolutions = [p for name, p in detector.named_parameters() if p.requires_grad and name.endswith("weight")]
    assert all(p.grad is not None and float(p.grad.abs().max()) > 0 for p in convolutions)


def test_the_projections_are_the_papers():
    detector = RDPlus(**{**RDPlus.paper_params, "weights": "none"})
    widths = [[m.out_channels for m in p if isinstance(m, torch.nn.Conv2d)] for p in detector.projections]
    assert widths == [[128, 64, 128, 256], [256, 128, 256, 512], [512, 256, 512, 1024]]
    assert [type(m).__name__ for m in detector.projections[0][:3]] == ["Conv2d", "InstanceNorm2d", "LeakyReLU"]


def test_noise_lies_in_one_rectangle():
    image = torch.full((40, 3, 256, 256), 0.5)
    noisy = with_simplex_noise(image, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, with_simplex_noise(image, torch.Generator().manual_seed(0)))
    sizes = set()
    for change in (noisy - 0.5).abs().sum(1):
        rows, columns = (change > 0).nonzero().T
        height, width = int(rows.max() - rows.min()) + 1, int(columns.max() - columns.min()) + 1
        assert min(height, width) >= 9
        assert max(height, width) <= 31
        assert float((change > 0).float().sum()) > 0.95 * height * width
        assert int(rows.min()) >= 1
        sizes.add((height, width))
    assert len(sizes) > 30
    values = (noisy - 0.5)[noisy != 0.5]
    assert 0.03 < float(values.std()) < 0.2
    assert with_simplex_noise(torch.zeros(2, 3, 16, 16), torch.Generator().manual_seed(0)).abs().sum() > 0


def test_gradients_of_two_batches_are_added():
    """The same as one step with the sum of both losses; batch norms see each batch by itself."""
    train = images(parts(8))
    _, whole = trained(train, backbone="resnet10t", weights="none", epochs=1, batch=4, accumulated=2)
    _, single = trained(train, backbone="resnet10t", weights="none", epochs=1, batch=4, accumulated=1)
    assert (len(whole), len(single)) == (1, 2)
    assert whole[0] == pytest.approx(2 * single[0], rel=0.2)


def test_the_training_loss_falls_and_the_encoder_stays_frozen(fitted):
    detector, losses = fitted
    assert len(losses) == 25 * 2
    assert np.mean(losses[-4:]) < 0.4 * losses[0]
    fresh = RDPlus().backbone.state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in detector.backbone.state_dict().items())


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_the_map_is_the_sum_of_the_layers_errors(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=3, defective=True))
    detector.sigma, sigma = 0.0, detector.sigma
    expected = torch.zeros(2, 64, 64)
    with torch.no_grad():
        encoded = detector.backbone(shown)
        projected = [p(e) for p, e in zip(detector.projections, encoded, strict=True)]
        for e, d in zip(encoded, detector.student(projected), strict=True):
            error = 1 - (e * d).sum(1) / (e.norm(dim=1) * d.norm(dim=1))
            expected += F.interpolate(error[:, None], (64, 64), mode="bilinear", align_corners=False)[:, 0]
    found = detector.predict(shown)
    detector.sigma = sigma
    torch.testing.assert_close(found.map, expected, rtol=1e-3, atol=1e-5)
    assert torch.equal(found.score, found.map.amax((1, 2)))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"epochs": 0}, "must be above 0"),
        ({"projection_rate": 0.0}, "must be above 0"),
        ({"projection_weight": -1.0}, "at least 0"),
        ({"layers": (2, 1)}, "the finest first"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(BadConfig, match=message):
        RDPlus(**{"backbone": "resnet10t", "weights": "none", **wrong})


@pytest.mark.slow
def test_real_bottles():
    """Two epochs at 128 pixels, of the paper's two hundred."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=2, accumulated=1)
    assert image_auroc(detector, test) > 0.9
