import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from drawn_images import batch, images, parts
from iadbe import progress
from iadbe.data.images import Batch
from iadbe.detectors.draem import DRAEM
from iadbe.errors import BadConfig

C1, C2 = 0.01**2, 0.03**2  # of SSIM


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn(*shape, seed=0):
    return torch.rand(shape, generator=source(seed))


class Given(nn.Module):
    """A network that gives what it was made with, and keeps what it saw."""

    def __init__(self, output):
        super().__init__()
        self.output, self.seen = output, []

    def forward(self, x):
        self.seen.append(x)
        return self.output


def with_outputs(repaired, logits):
    detector = DRAEM(width=2)
    detector.reconstructive, detector.discriminative = Given(repaired), Given(logits)
    return detector


def slow_ssim(x, y):
    """The mean SSIM of two planes, window by window: a Gaussian of 11 x 11, mirrored at the border."""
    reach = np.arange(-5, 6)
    weight = np.exp(-0.5 * (reach[:, None] ** 2 + reach**2) / 1.5**2)
    weight /= weight.sum()
    x, y = (np.pad(plane.numpy().astype(float), 5, mode="reflect") for plane in (x, y))
    found = []
    for i in range(x.shape[0] - 10):
        for j in range(x.shape[1] - 10):
            a, b = x[i : i + 11, j : j + 11], y[i : i + 11, j : j + 11]
            ma, mb = (weight * a).sum(), (weight * b).sum()
            va, vb = (weight * (a - ma) ** 2).sum(), (weight * (b - mb) ** 2).sum()
            vab = (weight * (a - ma) * (b - mb)).sum()
            found.append((2 * ma * mb + C1) * (2 * vab + C2) / ((ma**2 + mb**2 + C1) * (va + vb + C2)))
    return np.mean(found)


def test_the_loss_is_squared_error_and_ssim_and_a_focal_loss():
    image, corrupted, repaired = (drawn(2, 3, 12, 14, seed=s) for s in range(3))
    logits, mask = torch.randn(2, 2, 12, 14, generator=source(3)), drawn(2, 12, 14, seed=4) > 0.6
    found = float(with_outputs(repaired, logits)._loss(image, corrupted, mask))
    squared = ((repaired - image) ** 2).mean()
    similarity = np.mean([slow_ssim(a, b) for a, b in zip(repaired.flatten(0, 1), image.flatten(0, 1), strict=True)])
    focal = []
    for b in range(2):
        for i in range(12):
            for j in range(14):
                p = torch.softmax(logits[b, :, i, j], 0)[int(mask[b, i, j])]
                focal.append(float(-((1 - p) ** 2) * torch.log(p)))
    assert found == pytest.approx(float(squared) + 1 - similarity + np.mean(focal), rel=1e-4)


def test_the_discriminative_network_sees_the_repaired_and_the_corrupted_image():
    image, repaired = drawn(2, 3, 8, 8), drawn(2, 3, 8, 8, seed=1)
    detector = with_outputs(repaired, torch.zeros(2, 2, 8, 8))
    detector._networks(image)
    assert torch.equal(detector.reconstructive.seen[0], image)
    assert torch.equal(detector.discriminative.seen[0], torch.cat([repaired, image], 1))


def test_the_score_is_the_highest_mean_over_21_by_21_pixels_of_the_probability():
    logits = 3 * torch.randn(2, 2, 26, 26, generator=source())
    found = with_outputs(drawn(2, 3, 26, 26), logits).predict(batch([np.zeros((26, 26, 3), np.uint8)] * 2))
    probability = logits.softmax(1)[:, 1]
    torch.testing.assert_close(found.map, probability)
    padded = F.pad(probability, (10, 10, 10, 10))
    means = [[padded[b, i : i + 21, j : j + 21].sum() / 441 for i in range(26) for j in range(26)] for b in range(2)]
    torch.testing.assert_close(found.score, torch.tensor(means).amax(1))


def test_half_of_the_images_have_a_texture_in_a_mask():
    image = drawn(40, 3, 32, 32)
    plain, corrupted, mask, _ = DRAEM(width=2, rotated=0.0)._with_defects(Batch(image), source())
    assert torch.equal(plain, image)
    assert 8 < int(mask.flatten(1).any(1).sum()) < 30
    changed = (corrupted != image).any(1)
    assert not changed[~mask].any()
    assert float(changed[mask].float().mean()) > 0.95
    assert 0 <= float(corrupted.min()) <= float(corrupted.max()) <= 1


def test_opacities_are_from_a_fifth_to_one(tmp_path):
    """A white texture that the augmentations leave alone, on a black image: what is seen is the opacity."""
    Image.new("RGB", (8, 8), (255, 255, 255)).save(tmp_path / "white.png")
    detector = DRAEM(width=2, rotated=0.0, textures=str(tmp_path))
    seen = []
    for seed in range(40):
        _, corrupted, mask, _ = detector._with_defects(Batch(torch.zeros(8, 3, 32, 32)), source(seed))
        for one, where in zip(corrupted, mask, strict=True):
            if where.any() and len(one[:, where].unique()) == 1:
                seen.append(float(one[:, where].max()))
    bright = [value for value in seen if value > 0.13]  # below: textures made dark by an augmentation
    assert 0.19 < min(bright) < 0.35
    assert 0.9 < max(bright) <= 1


def test_some_images_are_rotated_and_their_targets_with_them():
    image = drawn(60, 3, 16, 16)
    plain, corrupted, mask, _ = DRAEM(width=2, rotated=0.3)._with_defects(Batch(image), source())
    turned = (plain != image).flatten(1).any(1)
    assert 8 < int(turned.sum()) < 30
    outside = ~mask[:, None].expand_as(plain)
    assert torch.equal(plain[outside], corrupted[outside])


def test_training_repairs_and_finds_a_dent():
    losses = []
    with progress.listening(lambda report: losses.append(report.value) if report.phase == "loss" else None):
        detector = DRAEM(width=8, epochs=40, learning_rate=2e-3, rotated=0.0)
        detector.fit(images(parts(16)), np.random.default_rng(0))
    assert len(losses) == 80
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])
    dented = parts(8, seed=3, defective=True)
    good, bad = detector.predict(batch(parts(8, seed=2))), detector.predict(batch(dented))
    assert float((bad.score[:, None] > good.score).float().mean()) > 0.8


def test_a_last_batch_that_is_too_small_is_filled_up():
    detector, sizes = DRAEM(width=2, epochs=2, batch=4), []
    detector._loss = lambda image, corrupted, mask, region: (
        sizes.append(len(image)) or sum(p.sum() for p in detector.parameters())
    )
    detector.fit(images(parts(6, side=32)), np.random.default_rng(0))
    assert sizes == [4, 4, 4, 4]


@pytest.mark.parametrize("params", [{"width": 1}, {"epochs": 0}, {"rotated": 1.5}, {"learning_rate": 0}])
def test_impossible_parameters_are_refused(params):
    with pytest.raises(BadConfig, match="must be"):
        DRAEM(**params)
