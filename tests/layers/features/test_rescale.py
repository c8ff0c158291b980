import pytest
import torch

from iadbe.layers.features.rescale import Rescale

PARTS = [torch.randn(n, 4, generator=torch.Generator().manual_seed(n)) * 6 + 1 for n in (5, 2, 9)]


def test_all_parts_together_have_the_size_that_is_wanted():
    level = Rescale(0.2)
    level.fit(iter(PARTS))
    seen = level(torch.cat(PARTS))
    assert float(seen.square().mean().sqrt()) == pytest.approx(0.2, rel=1e-5)
    torch.testing.assert_close(seen / seen[0, 0], torch.cat(PARTS) / PARTS[0][0, 0])  # one factor for all


def test_the_factor_is_fitted_again_and_is_a_buffer():
    level, other = Rescale(), Rescale()
    level.fit(PARTS)
    first = level.factor.clone()
    level.fit([p * 2 for p in PARTS])
    torch.testing.assert_close(level.factor, first / 2)
    other.load_state_dict(level.state_dict())
    assert torch.equal(other(PARTS[0]), level(PARTS[0]))


def test_zeros_have_the_factor_1():
    level = Rescale()
    level.fit([torch.zeros(3, 3)])
    assert float(level.factor) == 1
