import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import batch, dents_shown, images, parts
from iadbe.data.images import Batch
from iadbe.detectors.nsa import NSA, _EncoderDecoder, _UpBlock
from iadbe.errors import BadConfig
from iadbe.metrics.auroc import AUROC
from iadbe.registry import card

QUICK = {"width": 8, "batch": 8, "learning_rate": 5e-3}


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(NSA(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=120, width=16, batch=4, learning_rate=2e-3, label="binary")


def test_the_training_loss_falls(fitted):
    losses = fitted[1]
    assert len(losses) == 480
    assert np.mean(losses[-20:]) < 0.6 * np.mean(losses[:5])


def test_dents_are_localised(fitted):
    detector, _ = fitted
    dented = parts(8, seed=3, defective=True)
    found = detector.predict(batch(dented))
    assert dents_shown(dented, found.map, within=64 / 4) >= 6
    assert AUROC()(np.stack([pixels.max(2) < 40 for pixels in dented]), found.map.numpy()) > 0.85
    torch.testing.assert_close(found.map.mean((1, 2)), found.score, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("label", ["logistic", "binary", "continuous"])
def test_losses_are_those_of_each_label(label):
    detector = NSA(**QUICK, label=label, slope=0.25, middle=10)
    changed = torch.tensor([[True, True], [False, True]])
    levels = torch.tensor([[30.0, 5.0], [0.0, 10.0]])
    output = torch.tensor([[[1.5, -0.5], [0.3, 2.0]]])
    truth = detector._truth(changed, levels)
    total = 0.0
    for m, v, t, o in zip(changed.flatten(), levels.flatten(), truth.flatten(), output.flatten(), strict=True):
        logistic = float(m) / (1 + np.exp(-0.25 * (float(v) - 10)))
        wanted = {"logistic": logistic, "binary": float(m), "continuous": float(v)}[label]
        assert float(t) == pytest.approx(wanted)
        p = 1 / (1 + np.exp(-float(o)))
        cross_entropy = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
        total += (max(float(o), 0) - wanted) ** 2 if label == "continuous" else cross_entropy
    assert float(detector._loss(output, truth[None])) == pytest.approx(total / 4, rel=1e-5)
    found = detector.predict(batch(parts(2)))
    assert float(found.map.min()) >= 0
    assert label == "continuous" or float(found.map.max()) <= 1


def test_patches_come_from_the_next_image_and_lie_on_the_object():
    shown = batch(parts(6)).image
    detector = NSA(**QUICK, background=90, tolerance=50, min_object=0.7, min_overlap=0.7)
    made, truth = detector._anomalies(shown, source(3))
    changed = (made - shown).abs().amax(1) > 1e-3
    assert int(changed.flatten(1).any(1).sum()) >= 4
    assert truth.shape == (6, 64, 64)
    assert 0 <= float(truth.min()) < 0.5 < float(truth.max()) <= 1
    y, x = torch.meshgrid(*[torch.arange(64) / 64 - 0.5] * 2, indexing="ij")
    ground = (y**2 + x**2) > 0.45**2
    assert float((truth[:, ground] > 0.5).float().mean()) < 0.05


def test_one_image_is_its_own_next_image():
    made, truth = NSA(**QUICK)._anomalies(batch(parts(1)).image, source(3))
    assert made.shape == (1, 3, 64, 64)
    assert torch.isfinite(truth).all()


def test_shapes_of_the_network_are_those_of_the_authors():
    network = _EncoderDecoder(64)
    image = torch.rand(2, 3, 64, 64, generator=source())
    x = (image - network.mean) / network.std
    shapes = []
    for part in (*network.encoder, network.bottleneck, *network.decoder):
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes[3:9] == [(64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2), (128, 2, 2)]
    assert shapes[9:] == [(64, 4, 4), (32, 8, 8), (16, 16, 16), (16, 32, 32), (1, 64, 64)]
    counted = sum(p.numel() for p in network.encoder.parameters())
    assert counted == 11_176_512  # torchvision's ResNet-18 without its last layer
    assert network(torch.rand(1, 3, 50, 70)).shape == (1, 1, 50, 70)


def test_a_block_that_doubles_the_grid_is_residual():
    block = _UpBlock(4, 2).eval()
    x = torch.randn(1, 4, 3, 3, generator=source())
    torch.testing.assert_close(block(x), F.relu(block.branch(x) + block.shortcut(x)))
    assert block(x).shape == (1, 2, 6, 6)


def test_moved_images_are_shifted_rotated_and_flipped():
    image = F.interpolate(torch.rand(60, 3, 8, 8, generator=source()), (64, 64), mode="bilinear")
    still = NSA(**QUICK, shift=0.0)._moved(Batch(image), source(1))[0]
    torch.testing.assert_close(still, image, rtol=0, atol=1e-5)
    flipped = NSA(**QUICK, shift=0.0, flip=True)._moved(Batch(image), source(1))[0]
    upside = (flipped - image.flip(2)).abs().amax((1, 2, 3)) < 1e-4
    assert 0.3 < float(upside.float().mean()) < 0.7
    torch.testing.assert_close(flipped[~upside], image[~upside], rtol=0, atol=1e-4)
    shifted = NSA(**QUICK, shift=0.25)._moved(Batch(image[:1]), source(1))[0]
    assert not torch.allclose(shifted, image[:1], atol=0.05)
    turned = NSA(**QUICK, shift=0.0, rotation=20)._moved(Batch(image), source(1))[0]
    assert float((turned - image)[:, :, 31:33, 31:33].abs().mean()) < 0.3 * float((turned - image).abs().mean())


def test_the_categories_of_the_paper_have_valid_parameters():
    by_category = card("detectors", "nsa").get("paper_by_category")
    assert len(by_category) == 15
    for params in by_category.values():
        NSA(**{**params, **QUICK})
    assert by_category["mvtec_ad/tile"]["mixed"]
    assert by_category["mvtec_ad/bottle"]["background"] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        {"label": "soft"},
        {"patches": 0},
        {"half_height": (0.4, 0.1)},
        {"half_width": (0.1, 0.9)},
        {"resize": (2.0, 1.0)},
        {"background": 300},
        {"width": 2},
    ],
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        NSA(**{**QUICK, **wrong})
