import math

import pytest
import torch

from iadbe.layers.memory_bank.retrieval import block_histograms, divergence


def test_histograms_are_shares_within_blocks():
    codes = torch.zeros(1, 4, 4, dtype=torch.long)
    codes[0, :2, :2] = torch.tensor([[1, 2], [1, 1]])
    found = block_histograms(codes, 3, 2)
    assert found.shape == (1, 4, 3)
    assert found[0, 0].tolist() == [0, 0.75, 0.25]
    assert found[0, 3].tolist() == [1, 0, 0]


@pytest.mark.parametrize("side", [3, 5, 7, 13])
def test_any_grid_is_cut_into_blocks(side):
    codes = torch.randint(6, (3, side, side), generator=torch.Generator().manual_seed(0))
    found = block_histograms(codes, 6, 5)
    torch.testing.assert_close(found.sum(2), torch.ones(3, min(5, side) ** 2))


def test_divergence_is_kullback_and_leiblers_over_the_blocks_most_alike():
    p = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]])
    q = torch.tensor([[[0.25, 0.75], [0.9, 0.1], [0.0, 1.0]]])
    one = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert float(divergence(p, q, 0.7)) == pytest.approx(one, abs=1e-5)
    assert float(divergence(p, q, 1.0)) > 10  # the block that has nothing in common


def test_the_same_layout_comes_first():
    codes = torch.randint(4, (8, 20, 20), generator=torch.Generator().manual_seed(1))
    codes[:, :10] = torch.arange(8).view(8, 1, 1) % 4
    histograms = block_histograms(codes, 4)
    order = divergence(histograms[3:4], histograms).argsort(1)[0]
    assert order[0] == 3
    assert order[1] == 7  # whose upper half is the same
