import math

import pytest
import torch

from iadbe.data.images import Batch
from iadbe.layers.training.losses import dice_loss, focal_loss, perceptual_loss, ssim_loss
from iadbe.networks.backbone import Backbone


def test_focal_loss_is_the_papers_formula():
    probability, truth = [0.9, 0.2, 0.6, 0.5], [1, 0, 0, 1]
    logits = torch.tensor([math.log(p / (1 - p)) for p in probability])
    for gamma in (0, 2, 4):
        given = [p if t else 1 - p for p, t in zip(probability, truth, strict=True)]
        expected = sum(-((1 - p) ** gamma) * math.log(p) for p in given) / 4
        assert float(focal_loss(logits, torch.tensor(truth), gamma)) == pytest.approx(expected, rel=1e-5)


def test_probabilities_of_0_and_1_are_finite():
    logits = torch.tensor([-200.0, 200.0, 200.0], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0, 1, 0]))
    loss.backward()
    assert loss.item() == pytest.approx(200 / 3)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.tolist() == pytest.approx([0, 0, 1 / 3])


def test_dice_loss_is_the_papers_formula():
    """Two images of three pixels, summed by hand."""
    p, g = [[0.5, 0.25, 1.0], [0.0, 0.1, 0.0]], [[1, 0, 1], [0, 0, 0]]
    for smooth, squared in ((0.0, True), (1.0, True), (1.0, False)):
        dice = []
        for own, true in zip(p, g, strict=True):
            both = sum(a * b for a, b in zip(own, true, strict=True))
            whole = sum(a**2 for a in own) + sum(b**2 for b in true) if squared else sum(own) + sum(true)
            dice.append((2 * both + smooth) / (whole + smooth))
        found = dice_loss(torch.tensor(p).view(2, 1, 1, 3), torch.tensor(g).view(2, 1, 1, 3), smooth, squared)
        assert float(found) == pytest.approx(1 - sum(dice) / 2, rel=1e-6)


def test_dice_loss_of_an_equal_and_of_an_empty_mask_is_0():
    mask = torch.tensor([[0.0, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert float(dice_loss(mask, mask.bool())) == 0
    assert float(dice_loss(mask, 1 - mask, smooth=0)) == 1


def gaussian_ssim(x, y, window, sigma):
    """Equation 13 of Wang 2004 at one pixel after the other, with the image mirrored at its border."""
    reach, (height, width), values = window // 2, x.shape, []
    weight = [math.exp(-(i**2) / (2 * sigma**2)) for i in range(-reach, reach + 1)]

    def mirrored(i, side):
        return 2 * (side - 1) - abs(i) if abs(i) >= side else abs(i)

    for row in range(height):
        for column in range(width):
            near = [
                (weight[i + reach] * weight[j + reach] / sum(weight) ** 2, mirrored(row + i, height),
                 mirrored(column + j, width))
                for i in range(-reach, reach + 1)
                for j in range(-reach, reach + 1)
            ]  # fmt: skip
            mx, my = (sum(w * float(image[r, c]) for w, r, c in near) for image in (x, y))
            xx, yy = (sum(w * float(i[r, c]) ** 2 for w, r, c in near) - m**2 for i, m in ((x, mx), (y, my)))
            xy = sum(w * float(x[r, c]) * float(y[r, c]) for w, r, c in near) - mx * my
            first = (2 * mx * my + 0.01**2) * (2 * xy + 0.03**2)
            values.append(first / ((mx**2 + my**2 + 0.01**2) * (xx + yy + 0.03**2)))
    return sum(values) / len(values)


def test_ssim_loss_is_1_minus_the_mean_of_the_papers_index():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 1, 9, 8, generator=generator)
    expected = 1 - gaussian_ssim(x[0, 0], y[0, 0], 5, 1.5)
    assert float(ssim_loss(x, y, 5)) == pytest.approx(expected, rel=1e-4)
    assert float(ssim_loss(x, x)) == pytest.approx(0, abs=1e-6)


def test_perceptual_loss_is_the_mean_squared_distance_of_each_layer():
    backbone = Backbone(layers=(1, 2, 3), weights="none")
    x, y = torch.rand(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    expected = sum(float(((a - b) ** 2).mean()) for a, b in zip(backbone(Batch(x)), backbone(Batch(y)), strict=True))
    x.requires_grad_(True)
    y.requires_grad_(True)
    loss = perceptual_loss(backbone, x, y)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert y.grad is None
    assert all(p.grad is None for p in backbone.parameters())
    with torch.no_grad():  # a small step against the gradient lowers it
        assert perceptual_loss(backbone, x - 1e-3 * x.grad / x.grad.norm(), y) < loss.detach()
        assert perceptual_loss(backbone, x + 1e-3 * x.grad / x.grad.norm(), y) > loss
    assert perceptual_loss(backbone, y, y).item() == 0
