import math

import pytest
import torch
from torch import nn

from iadbe import progress
from iadbe.layers.training.loop import federated
from iadbe.layers.training.optimizers import StableAdamW, clipped_step, warm_cosine


def walked(optimizer, weight, gradients):
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach().clone()


def test_where_nothing_surprises_it_is_amsgrad_adamw():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(5, generator=generator)
    # falling gradients never exceed what the second moment expects
    gradients = [torch.randn(5, generator=generator).sign() * 0.9**i for i in range(10)]
    how = {"lr": 0.01, "weight_decay": 0.1}
    a, b = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    expected = walked(torch.optim.AdamW([b], amsgrad=True, **how), b, gradients)
    torch.testing.assert_close(walked(StableAdamW([a], **how), a, gradients), expected, rtol=1e-5, atol=1e-6)


def test_a_surprise_is_divided_by_how_large_it_is():
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


def test_gradients_are_shortened_to_the_norm():
    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    heard = []
    with progress.listening(heard.append):
        value = clipped_step(torch.optim.SGD([weight], 1.0), (weight**2).sum() / 2, 0.5)
    torch.testing.assert_close(weight.detach(), torch.tensor([3.0, 4.0]) * (1 - 0.5 / 5), rtol=1e-4, atol=1e-5)
    assert value == 12.5
    assert heard[0].value == 12.5


def test_what_is_shortened_is_the_gradient_with_the_federated_pull():
    """Two steps with FedProx: the second gradient is (1.5, 2.5) and pulls by 2 · (-1.5, -2.5) towards the start."""
    weight = nn.Parameter(torch.tensor([3.0, 5.0]))
    optimizer = torch.optim.SGD([weight], 0.5)
    with federated(1, 2.0):
        clipped_step(optimizer, (weight**2).sum() / 2, 100.0)  # nothing pulls yet
        torch.testing.assert_close(weight.detach(), torch.tensor([1.5, 2.5]))
        clipped_step(optimizer, (weight**2).sum() / 2, 0.5)
    length = math.hypot(1.5, 2.5)
    expected = torch.tensor([1.5, 2.5]) * (1 + 0.5 * 0.5 / length)  # 1.5 - 3 = -1.5: away from 0, by a length of 0.5
    torch.testing.assert_close(weight.detach(), expected, rtol=1e-4, atol=1e-5)


def test_the_rate_rises_and_falls_along_a_cosine():
    rates = [warm_cosine(n, 5000, 100, 0.1) for n in range(5000)]
    assert rates[0] == 0
    assert rates[50] == pytest.approx(0.5)
    assert max(rates) == rates[100] == 1
    assert rates[2550] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-4)
    assert [warm_cosine(n, 5, 100, 0.1) for n in range(2)] == [1, pytest.approx(0.1 + 0.9 * 0.904508, rel=1e-4)]
