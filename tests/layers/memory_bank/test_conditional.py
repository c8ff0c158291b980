import torch

from iadbe.layers.memory_bank.conditional import masked_nearest_distance, position_prior


def test_the_nearest_patch_of_the_mask_counts():
    bank = torch.tensor([[0.0], [1.0], [5.0]]) + 100
    queries = torch.tensor([[0.2], [0.2], [0.2]]) + 100
    mask = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    found = masked_nearest_distance(queries, bank, mask)
    torch.testing.assert_close(found, torch.tensor([0.2, 0.8, 4.8]), atol=1e-4, rtol=0)


def test_the_prior_is_the_share_of_a_patch_in_the_neighbourhood():
    source = torch.Generator().manual_seed(0)
    batches = [torch.randint(5, (count, 6, 7), generator=source) for count in (2, 3)]
    prior = position_prior(batches, 5, 1)
    assert prior.shape == (42, 5)
    hits = torch.cat(batches)
    for row, column in ((0, 0), (3, 4), (5, 6)):
        around = hits[:, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].flatten()
        share = around.bincount(minlength=5) / len(around)
        torch.testing.assert_close(prior[row * 7 + column], share)
