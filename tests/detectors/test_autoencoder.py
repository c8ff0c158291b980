import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.data.images import View
from iadbe.detectors.autoencoder import Autoencoder
from iadbe.errors import BadConfig
from iadbe.layers.features.similarity import ssim

QUICK = {"size": 64, "batch": 8, "learning_rate": 1e-3}
EPOCHS = {"ssim": 45, "l2": 40}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    detector, losses = Autoencoder(**{**QUICK, **params}), []

    def record(report):
        if report.phase == "loss":
            losses.append(report.value)

    with progress.listening(record):
        detector.fit(train, np.random.default_rng(seed))
    return detector, losses


@pytest.fixture(scope="module", params=["ssim", "l2"])
def fitted(request):
    return trained(images(parts(16)), loss=request.param, epochs=EPOCHS[request.param])


class TestNetwork:
    @pytest.mark.parametrize(("size", "convolutions"), [(128, 9), (256, 10), (32, 7)])
    def test_the_layers_are_the_papers(self, size, convolutions):
        detector = Autoencoder(size=size, latent=50)
        down = [m for m in detector.network if isinstance(m, nn.Conv2d)]
        up = [m for m in detector.network if isinstance(m, nn.ConvTranspose2d)]
        assert len(down) == len(up) == convolutions
        assert [(m.in_channels, m.out_channels) for m in down] == [(m.out_channels, m.in_channels) for m in up][::-1]
        assert [m.out_channels for m in down][-7:] == [32, 64, 64, 128, 64, 32, 50]
        assert sum(m.stride == (2, 2) for m in down) == {32: 2, 128: 4, 256: 5}[size]
        code = detector.network[: 2 * convolutions - 1](torch.zeros(2, 3, size, size))
        assert code.shape == (2, 50, 1, 1)
        assert detector.network(torch.zeros(2, 3, size, size)).shape == (2, 3, size, size)
        assert {m.negative_slope for m in detector.network if isinstance(m, nn.LeakyReLU)} == {0.2}

    def test_code_and_reconstruction_are_linear(self):
        types = [type(m) for m in Autoencoder(size=64).network]
        code = types.index(nn.ConvTranspose2d)
        assert types[code - 1] is nn.Conv2d
        assert types[-1] is nn.ConvTranspose2d


def test_it_learns_to_reconstruct(fitted):
    detector, losses = fitted
    assert len(losses) == EPOCHS[detector.loss] * 2
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    seen = batch(parts(4, seed=2))
    with torch.no_grad():
        reconstruction = detector.network(seen.image)
    mean = seen.image.mean((2, 3), keepdim=True)
    if detector.loss == "l2":
        assert (reconstruction - seen.image).square().mean() < 0.75 * (mean - seen.image).square().mean()
    else:
        assert ssim(reconstruction, seen.image).mean() > ssim(mean.expand_as(reconstruction), seen.image).mean() + 0.2


def test_a_dent_is_found(fitted):
    detector, _ = fitted
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(parts(8, seed=3, defective=True)))
    assert (bad.score[:, None] > good.score).float().mean() > 0.9
    assert torch.equal(bad.score, bad.map.amax((1, 2)))
    assert bad.map.min() >= 0


def test_the_map_has_the_size_of_the_image(fitted):
    detector, _ = fitted
    prediction = detector.predict(batch(parts(2), View(96, crop=88)))
    assert prediction.map.shape == (2, 88, 88)


def test_the_same_seed_gives_the_same_scores(fitted):
    train, shown = images(parts(4)), batch(parts(2, seed=1))
    torch.manual_seed(3)
    scores = [trained(train, seed, epochs=2)[0].predict(shown).score for seed in (0, 0, 1)]
    assert torch.equal(scores[0], scores[1])
    assert not torch.equal(scores[0], scores[2])


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"loss": "l1"}, "loss is ssim or l2, not 'l1'"),
        ({"size": 100}, "size is 32, 64, 128, 256 or 512, not 100"),
        ({"window": 10}, "window is an odd number"),
        ({"window": 33, "size": 32}, "window is an odd number"),
        ({"epochs": 0}, "must all be above 0"),
        ({"latent": 0}, "must all be above 0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Autoencoder(**wrong)
