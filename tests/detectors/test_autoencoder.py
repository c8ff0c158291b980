import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fitted_losses
from drawn_images import batch, images, parts
from iadbe.data.images import View
from iadbe.detectors.autoencoder import Autoencoder, corrupted
from iadbe.errors import BadConfig
from iadbe.layers.features.similarity import ssim

QUICK = {"size": 64, "batch": 8, "learning_rate": 1e-3}
EPOCHS = {"ssim": 45, "l2": 40}


def trained(train, seed=0, **params):
    """Return a fitted detector and the loss of every step."""
    return fitted_losses.fit(Autoencoder(**{**QUICK, **params}), train, seed)


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


class TestCorruption:
    image = torch.linspace(0.2, 0.8, 2 * 3 * 40 * 48).view(2, 3, 40, 48)

    def drawn(self, corruption, noise, seed=0):
        return corrupted(self.image, corruption, noise, torch.Generator().manual_seed(seed))

    def test_none_changes_nothing(self):
        assert torch.equal(self.drawn("none", 0.2), self.image)

    def test_gaussian_noise_is_independent_and_has_the_deviation(self):
        added = self.drawn("gaussian", 0.3) - self.image
        assert float(added.std()) == pytest.approx(0.3, rel=0.05)
        assert abs(float((added[..., 1:] * added[..., :-1]).mean())) < 0.01 * 0.3
        assert not torch.equal(self.drawn("gaussian", 0.3, 1), self.drawn("gaussian", 0.3, 2))

    def test_salt_sets_a_share_of_pixels_to_black_or_white_in_all_channels(self):
        found = self.drawn("salt", 0.2)
        changed = (found != self.image).any(1)
        assert float(changed.float().mean()) == pytest.approx(0.2, abs=0.03)
        values = found.permute(0, 2, 3, 1)[changed]
        assert set(values.unique().tolist()) == {0.0, 1.0}
        assert bool((values == values[:, :1]).all())
        assert float(values[:, 0].mean()) == pytest.approx(0.5, abs=0.08)

    def test_coarse_noise_is_drawn_on_cells_of_8_pixels_and_shifted(self):
        """The same draws, upsampled and shifted pixel by pixel."""
        added = self.drawn("coarse", 0.2) - self.image
        source = torch.Generator().manual_seed(0)
        cells = 0.2 * torch.randn(2, 3, 5, 6, generator=source)
        smooth = F.interpolate(cells, scale_factor=8, mode="bilinear", align_corners=False)
        down, right = (int(torch.randint(side, (), generator=source)) for side in (40, 48))
        expected = torch.empty_like(smooth)
        for y in range(40):
            for x in range(48):
                expected[:, :, (y + down) % 40, (x + right) % 48] = smooth[:, :, y, x]
        torch.testing.assert_close(added, expected, rtol=0, atol=1e-6)

    def test_coarse_noise_serves_sides_that_8_does_not_divide(self):
        image = torch.rand(1, 3, 44, 50)
        assert corrupted(image, "coarse", 0.2, torch.Generator()).shape == image.shape


@pytest.mark.parametrize("loss", ["l2", "ssim"])
def test_denoising_compares_the_reconstruction_of_the_noisy_image_with_the_clean_one(loss):
    train = images(parts(4))
    _, losses = trained(train, corruption="gaussian", noise=0.5, epochs=1, batch=4, loss=loss)
    again = Autoencoder(**QUICK, loss=loss)
    rng = np.random.default_rng(0)
    torch_seed, noise_seed = int(rng.integers(2**63)), int(rng.integers(2**63))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed)
        again.network = Autoencoder(**QUICK).network
    shown = next(train.batches(4, rng)).image
    noisy = shown + 0.5 * torch.randn(shown.shape, generator=torch.Generator().manual_seed(noise_seed))
    with torch.no_grad():
        found = again.network(noisy)
        expected = (found - shown).square().mean() if loss == "l2" else 1 - ssim(found, shown).mean()
    assert losses == [pytest.approx(float(expected), rel=1e-4)]


def test_it_learns_to_remove_noise():
    """Noise hides most of a part, and is removed; a test image is not corrupted."""
    detector, losses = trained(images(parts(8)), loss="l2", corruption="coarse", epochs=180, size=32)
    assert np.mean(losses[-4:]) < 0.5 * np.mean(losses[:4])
    seen = batch(parts(4, seed=2, side=32))
    noisy = corrupted(seen.image, "coarse", 0.2, torch.Generator().manual_seed(0))
    with torch.no_grad():
        left = (detector.network(noisy) - seen.image).square().mean()
    assert left < 0.8 * (noisy - seen.image).square().mean()
    assert torch.equal(detector.predict(seen).score, detector.predict(seen).score)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"loss": "l1"}, "loss is ssim or l2, not 'l1'"),
        ({"size": 100}, "size is 32, 64, 128, 256 or 512, not 100"),
        ({"window": 10}, "window is an odd number"),
        ({"window": 33, "size": 32}, "window is an odd number"),
        ({"corruption": "blur"}, "corruption is none, gaussian, salt or coarse, not 'blur'"),
        ({"noise": 0.0}, "noise must be above 0"),
        ({"corruption": "salt", "noise": 2.0}, "at most 1 for salt"),
        ({"epochs": 0}, "must all be above 0"),
        ({"latent": 0}, "must all be above 0"),
    ],
)
def test_impossible_parameters_are_refused(wrong, sentence):
    with pytest.raises(BadConfig, match=sentence):
        Autoencoder(**wrong)
