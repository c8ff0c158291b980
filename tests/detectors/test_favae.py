import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.data.images import View
from iadbe.detectors.favae import FAVAE
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import gaussian_blur

QUICK = {"size": 64, "layers": (0, 1), "width": 8, "latent": 16, "batch": 8}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(FAVAE(**{**QUICK, **params}), train, seed)


@pytest.fixture(scope="module")
def fitted():
    return trained(images(parts(16)), epochs=20)


class TestNetwork:
    def test_the_layers_are_those_of_the_open_implementation(self):
        network = FAVAE(weights="none").network
        down = [m for m in network.encoder if isinstance(m, nn.Conv2d)]
        assert [m.out_channels for m in down] == [128, 128, 256, 256, 512, 512, 512, 32, 200]
        up = [m for m in network.decoder if isinstance(m, nn.ConvTranspose2d)]
        assert [m.out_channels for m in up] == [32, 512, 512, 512, 256, 256, 128, 128, 3]
        # its decoder begins with a layer that only reshapes, so that its numbers are higher by one
        assert network.taps == [22 - 1, 16 - 1, 10 - 1]

    @pytest.mark.parametrize("size", [64, 128])
    def test_tapped_layers_have_the_grids_of_the_features(self, size):
        detector = FAVAE(**{**QUICK, "size": size, "layers": (0, 1, 2)}, weights="none").eval()
        image = torch.rand(2, 3, size, size)
        reconstruction, predicted = detector.network(detector.network.code(image)[0])
        assert reconstruction.shape == image.shape
        assert [p.shape for p in predicted] == [f.shape for f in detector.backbone(image)]

    def test_layers_of_other_strides_are_refused(self):
        with pytest.raises(BadConfig, match=r"strides 2, 4 and 8, in this order; \[2, 3\] .* \[8, 16\]"):
            FAVAE(**{**QUICK, "layers": (2, 3)}, weights="none")
        with pytest.raises(BadConfig, match="in this order"):
            FAVAE(**{**QUICK, "layers": (1, 0)}, weights="none")
        with pytest.raises(BadConfig, match="stride 8 needs a size of 64 or more, not 32"):
            FAVAE(**{**QUICK, "layers": (0, 2), "size": 32}, weights="none")


def test_the_loss_is_the_papers():
    """Squared errors of image and features and the divergence, summed one by one, per image."""
    train = images(parts(3))
    _, losses = trained(train, epochs=1, batch=3, beta=2.0)
    rng = np.random.default_rng(0)
    torch_seed, noise_seed = int(rng.integers(2**63)), int(rng.integers(2**63))
    with torch.random.fork_rng(devices=[]):
        again = FAVAE(**QUICK)
        torch.manual_seed(torch_seed)
        again._initialise()
    network, expected = again.network.train(), 0.0
    shown = next(train.batches(3, rng))
    noise = torch.randn(3, 16, generator=torch.Generator().manual_seed(noise_seed))
    with torch.no_grad():
        mean, log_variance = network.encoder(shown.image).flatten(1).split(16, 1)
        x, found = (mean + noise * log_variance.exp().sqrt())[:, :, None, None], []
        for number, layer in enumerate(network.decoder):
            x = layer(x)
            if number in network.taps:
                found.insert(0, network.adapters[len(network.taps) - 1 - len(found)](x))
        pairs = [(shown.image, torch.sigmoid(x)), *zip(again.backbone(shown.image), found, strict=True)]
    for image in range(3):
        expected += sum(float(((a[image] - b[image]) ** 2).sum()) for a, b in pairs)
        expected += float((mean[image] ** 2 + log_variance[image].exp() - 1 - log_variance[image]).sum())
    assert losses == [pytest.approx(expected / 3, rel=1e-4)]


def test_training_lowers_the_loss(fitted):
    _, losses = fitted
    assert len(losses) == 40
    assert np.mean(losses[-4:]) < 0.6 * np.mean(losses[:4])


def test_the_map_is_the_sum_of_errors_of_image_and_features(fitted):
    detector, _ = fitted
    shown = batch(parts(2, seed=4))
    found = detector.predict(shown)
    with torch.no_grad():
        reconstruction, predicted = detector.network(detector.network.code(shown.image)[0])
        map_ = ((shown.image - reconstruction) ** 2).sum(1, keepdim=True)
        for target, of in zip(detector.backbone(shown), predicted, strict=True):
            map_ = map_ + F.interpolate(((target - of) ** 2).sum(1, keepdim=True), (64, 64), mode="bilinear")
    torch.testing.assert_close(found.map, gaussian_blur(map_, 4.0)[:, 0], rtol=1e-4, atol=1e-4)
    assert torch.equal(found.score, found.map.amax((1, 2)))


def test_a_dent_is_found(fitted):
    detector, _ = fitted
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9


def test_the_view_may_have_another_size(fitted):
    prediction = fitted[0].predict(batch(parts(2), View(96, crop=88)))
    assert prediction.map.shape == (2, 88, 88)


@pytest.mark.parametrize("wrong", [{"latent": 0}, {"epochs": 0}, {"width": 0}, {"beta": -1.0}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig, match="must be above 0"):
        FAVAE(**{**QUICK, **wrong}, weights="none")
