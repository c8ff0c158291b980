import numpy as np
import pytest
import torch
import torch.nn.functional as F

import fitted_losses
from drawn_images import assert_dents_are_found, batch, bottles, image_auroc, images, parts
from iadbe.data.images import View
from iadbe.detectors.invad import InvAD, cosine_distance
from iadbe.errors import BadConfig


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(InvAD(**params), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=40, batch=8)


def test_the_training_loss_falls_and_the_encoder_stays_frozen(fitted):
    detector, losses = fitted
    assert len(losses) == 40 * 2
    assert np.mean(losses[-4:]) < 0.3 * np.mean(losses[:4])
    fresh = InvAD().backbone.state_dict()
    assert all(torch.equal(fresh[k], v) for k, v in detector.backbone.state_dict().items())


def test_a_dent_is_detected_and_localised(fitted):
    detector, _ = fitted
    assert_dents_are_found(detector)


def test_features_are_scaled_to_one_each(fitted):
    detector, _ = fitted
    found = detector._scaled(detector.backbone(batch(parts(16))))
    assert [float(f.square().mean().sqrt()) for f in found] == pytest.approx([1, 1, 1], rel=0.01)
    plain, _ = trained(images(parts(4)), epochs=1, rescale=False)
    assert [float(scale.factor) for scale in plain.scales] == [1, 1, 1]


def test_the_map_is_that_of_the_slow_version():
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, 3, 6, 4), (2, 5, 3, 2)]
    first, second = ([torch.randn(s, generator=generator) for s in shapes] for _ in range(2))

    def at(layers, image, y, x):
        """Return the unit vectors of both layers at a position of the finest grid, interpolated."""
        fine, coarse = (layer[image] / layer[image].norm(dim=0) for layer in layers)
        whole = F.interpolate(coarse[None], (6, 4), mode="bilinear", align_corners=False)[0]
        return torch.cat([fine[:, y, x], whole[:, y, x]])

    found = cosine_distance(first, second)
    for image in range(2):
        for y in range(6):
            for x in range(4):
                a, b = at(first, image, y, x), at(second, image, y, x)
                assert float(found[image, y, x]) == pytest.approx(float(1 - a @ b / (a.norm() * b.norm())), abs=1e-5)


def test_the_papers_networks():
    """WRN50-2's layers, 64 fused channels and 16 styles, as the authors configure them for MVTec AD."""
    detector = InvAD(**{**InvAD.paper_params, "weights": "none"})
    inversion = detector.inversion
    assert inversion.constant.shape[1] == 1024
    assert inversion.fusion.widths == [64, 64, 64]
    assert [part[0].kernel_size for part in inversion.fusion.downsampling] == [(1, 1), (2, 2), (4, 4)]
    weights = [[block.first.convolution.weight.shape[:2] for block in stage] for stage in inversion.stages]
    assert weights == [[(1024, 1024)] * 2, [(512, 1024), (512, 512)], [(256, 512), (256, 256)]]
    assert [[block.first.convolution.is_doubled for block in stage] for stage in inversion.stages] == [
        [False, False],
        [True, False],
        [True, False],
    ]
    assert inversion.stages[0][0].first.gamma.weight.shape == (1024, 16, 3, 3)
    rates = [stage[0][0].scale * (9 * stage[0][0].weight.shape[1]) ** 0.5 for stage in inversion.fusion.stages]
    assert rates == pytest.approx([1, 0.01, 0.01])


@pytest.mark.parametrize(
    ("backbone", "layers", "side"),
    [("tf_efficientnet_lite0", (1, 2, 3), 72), ("resnet10t", (1, 2), 70), ("vit_tiny_patch16_224", (3, 7), 64)],
)
def test_every_layer_is_reconstructed_in_its_shape(backbone, layers, side):
    detector, losses = trained(
        images(parts(3, side=side)), backbone=backbone, layers=layers, weights="none", epochs=1, width=8
    )
    shown = batch(parts(2, side=side))
    encoded = detector.backbone(shown)
    with torch.no_grad():
        assert [f.shape for f in detector.inversion(encoded)] == [f.shape for f in encoded]
    assert len(losses) == 1
    assert detector.predict(shown).map.shape == (2, side, side)


def test_the_learning_rate_falls_once(monkeypatch):
    rates = []
    original = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda self, *a: (rates.append(self.param_groups[0]["lr"]), original(self, *a))[1]
    )
    trained(images(parts(3)), backbone="resnet10t", layers=(1, 2), weights="none", epochs=5, batch=2, width=8)
    assert rates == pytest.approx([0.004] * 8 + [0.0004] * 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"width": 2}, "at least 4"),
        ({"epochs": 0}, "above 0"),
        ({"layers": (1, 3)}, "strides 4, 16"),
        ({"layers": (3, 2)}, "finest first"),
    ],
)
def test_impossible_parameters_are_refused(wrong, message):
    with pytest.raises(BadConfig, match=message):
        InvAD(**{"backbone": "resnet10t", "weights": "none", **wrong})


@pytest.mark.slow
def test_real_bottles():
    """Ten epochs at 128 pixels, of the paper's three hundred."""
    train, test = bottles(View(128))
    detector, _ = trained(train, epochs=10)
    assert image_auroc(detector, test) > 0.9
