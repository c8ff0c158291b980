import math

import pytest
import torch
import torch.nn.functional as F

from iadbe.layers.memory_bank.retrieval import block_divergence, block_histograms, local_retrieval_distance


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


def test_divergence_is_that_of_kullback_and_leibler_over_the_most_similar_blocks():
    p = torch.tensor([[[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]]])
    q = torch.tensor([[[0.25, 0.75], [0.9, 0.1], [0.0, 1.0]]])
    one = 0.5 * math.log(2) + 0.5 * math.log(0.5 / 0.75)
    assert float(block_divergence(p, q, 0.7)) == pytest.approx(one, abs=1e-5)
    assert float(block_divergence(p, q, 1.0)) > 10  # the block that has nothing in common


def test_the_image_itself_is_the_most_similar():
    codes = torch.randint(4, (8, 20, 20), generator=torch.Generator().manual_seed(1))
    codes[:, :10] = torch.arange(8).view(8, 1, 1) % 4
    histograms = block_histograms(codes, 4)
    order = block_divergence(histograms[3:4], histograms).argsort(1)[0]
    assert order[0] == 3
    assert order[1] == 7  # whose upper half is the same


@pytest.mark.parametrize("region", [1, 3])
def test_local_retrieval_searches_around_the_position_in_every_reference(region):
    source = torch.Generator().manual_seed(0)
    query = F.normalize(torch.randn(5, 4, 6, generator=source), dim=0)
    references = F.normalize(torch.randn(3, 5, 4, 6, generator=source), dim=1)
    distance = local_retrieval_distance(query, references, region)
    margin = region // 2
    for y in range(4):
        for x in range(6):
            nearby = [
                float(query[:, y, x] @ references[k, :, i, j])
                for k in range(3)
                for i in range(max(0, y - margin), min(4, y + margin + 1))
                for j in range(max(0, x - margin), min(6, x + margin + 1))
            ]
            assert float(distance[y, x]) == pytest.approx(1 - max(nearby), abs=1e-5)
