import math

import pytest
import torch
from torch import nn

from iadbe.layers.training.optimizers import StableAdamW, warmup_cosine


def walked(optimizer, weight, gradients):
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach().clone()


def test_without_outliers_it_is_amsgrad_adamw():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    # falling gradients never exceed what the second moment expects
    gradients = [torch.randn(5, generator=generator).sign() * 0.9**i for i in range(10)]
    how = {"lr": 0.01, "weight_decay": 0.1}
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    expected = walked(torch.optim.AdamW([b], amsgrad=True, **how), b, gradients)
    torch.testing.assert_close(walked(StableAdamW([a], **how), a, gradients), expected, rtol=1e-5, atol=1e-6)


def test_an_outlying_gradient_is_divided_by_its_size():
    weight = nn.Parameter(torch.zeros(4))
    optimizer = StableAdamW([weight], lr=0.01, weight_decay=0.0)
    before = walked(optimizer, weight, [torch.ones(4)] * 50)
    after = walked(optimizer, weight, [torch.full((4,), 100.0)])
    square = 1 - 0.999**50  # of ones, before its bias is corrected
    square = 0.999 * square + 0.001 * 100**2
    scale = math.sqrt(square / (1 - 0.999**51))
    mean = 0.9 * (1 - 0.9**50) + 0.1 * 100
    expected = 0.01 * mean / (1 - 0.9**51) / scale / (100 / scale)
    torch.testing.assert_close(before - after, torch.full((4,), expected), rtol=1e-3, atol=1e-6)


def test_the_rate_rises_and_falls_along_a_cosine():
    rates = [warmup_cosine(n, 5000, 100, 0.1) for n in range(5000)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.5)
    assert max(rates) == rates[100] == 1
    assert rates[2550] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert [warmup_cosine(n, 5, 100, 0.1) for n in range(2)] == [1, pytest.approx(0.1 + 0.9 * 0.904508, rel=1e-4)]
