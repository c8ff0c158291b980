import copy

import pytest
import torch
from torch import nn

from iadbe.layers.blocks import discriminator
from iadbe.layers.blocks.discriminator import Discriminator


def rows(count=100, dim=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixed = torch.randn(count, dim, generator=generator) @ torch.randn(dim, dim, generator=generator)
    return (mixed + 3).requires_grad_()


@pytest.fixture
def pair():
    """A discriminator and the same layers one after another."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        own = Discriminator(6, 16)
    nn.init.uniform_(own.norm.weight, 0.5, 2, generator=torch.Generator().manual_seed(1))
    plain = nn.Sequential(
        *(copy.deepcopy(p) for p in (own.hidden, own.norm)), nn.LeakyReLU(0.2), copy.deepcopy(own.out)
    )
    return own, plain


@pytest.mark.parametrize("held", [16384, 32])
def test_it_is_linear_norm_leaky_linear_in_values_gradients_and_statistics(pair, held, monkeypatch):
    monkeypatch.setattr(discriminator, "ROWS", held)
    own, plain = pair
    for seed in range(3):
        a, b = rows(seed=seed), rows(seed=seed)
        found, expected = own(a), plain(b)[:, 0]
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        found.square().sum().backward()
        expected.square().sum().backward()
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-4)
    for mine, other in zip(
        (own.hidden.weight, own.norm.weight, own.norm.bias, own.out.weight),
        (plain[0].weight, plain[1].weight, plain[1].bias, plain[3].weight),
        strict=True,
    ):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-3, atol=1e-3)
    for name, value in plain[1].state_dict().items():
        torch.testing.assert_close(own.norm.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own.eval()(rows(seed=9)), plain.eval()(rows(seed=9))[:, 0], rtol=1e-4, atol=1e-5)


def test_after_training_rows_are_independent(pair):
    own, _ = pair
    own(rows())
    before = copy.deepcopy(own.state_dict())
    own.eval()
    some = rows(seed=3)
    torch.testing.assert_close(own(some)[:5], own(some[:5]))
    assert all(torch.equal(before[k], v) for k, v in own.state_dict().items())


def test_the_hidden_values_of_many_rows_are_never_in_memory_at_once(pair, monkeypatch):
    monkeypatch.setattr(discriminator, "ROWS", 10)
    own, _ = pair
    largest = 0

    def watch(saved):
        nonlocal largest
        largest = max(largest, saved.numel() if saved.shape[-1:] == (16,) else 0)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(watch, lambda saved: saved):
        own(rows(200)).sum().backward()
    assert largest <= 10 * 16
