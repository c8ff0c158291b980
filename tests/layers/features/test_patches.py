import pytest
import torch

from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean

FINE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
COARSE = torch.rand(2, 5, 4, 4, generator=torch.Generator().manual_seed(1))


def test_nearest_repeats_the_coarse_values():
    found = concatenated([FINE, COARSE])
    assert found.shape == (2, 8, 8, 8)
    assert torch.equal(found[:, :3], FINE)
    assert torch.equal(found[:, 3:, ::2, ::2], COARSE)
    assert torch.equal(found[:, 3:, 1::2, 1::2], COARSE)


def test_bilinear_lies_between_the_coarse_values():
    found = concatenated([FINE, COARSE], "bilinear")[:, 3:]
    assert torch.equal(found[:, :, 0, 0], COARSE[:, :, 0, 0])
    between = 0.75 * COARSE[:, :, 0, 0] + 0.25 * COARSE[:, :, 0, 1]
    torch.testing.assert_close(found[:, :, 0, 1], between)


def test_a_single_layer_stays_as_it_is():
    assert torch.equal(concatenated([FINE]), FINE)


@pytest.mark.parametrize("size", [3, 5])
def test_the_neighbourhood_counts_outside_as_zero(size):
    found, reach = neighbourhood_mean(FINE, size), size // 2
    assert found.shape == FINE.shape
    inside = FINE[0, 1, 4 - reach : 5 + reach, 4 - reach : 5 + reach].mean()
    torch.testing.assert_close(found[0, 1, 4, 4], inside)
    corner = FINE[0, 1, : reach + 1, : reach + 1].sum() / size**2
    torch.testing.assert_close(found[0, 1, 0, 0], corner)


def test_a_neighbourhood_of_one_is_the_position_itself():
    assert torch.equal(neighbourhood_mean(FINE, 1), FINE)


def test_rows_are_ordered_by_image_then_row_then_column():
    rows = flattened(FINE)
    assert rows.shape == (2 * 64, 3)
    assert torch.equal(rows[64 + 3 * 8 + 5], FINE[1, :, 3, 5])
