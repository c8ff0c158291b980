"""Pixels that do not count: hand-computed cases."""

from fractions import Fraction

import pytest
import torch

from iadbe.layers.features.region import at_grid, average_pooled, counted, image_score, masked, mean_score

MAP = torch.tensor([[[9.0, 1, 2, 3], [9, 4, 5, 6]], [[9, 8, 7, 6], [5, 4, 3, 2]]])
REGION = torch.tensor([[[0, 1, 1, 1], [0, 1, 1, 0]], [[1, 1, 1, 1], [1, 1, 1, 1]]]).bool()


def test_scores_by_hand():
    assert image_score(MAP).tolist() == [9, 9]
    assert image_score(MAP, REGION).tolist() == [5, 9]
    assert image_score(MAP, top=2).tolist() == [9, 8.5]
    assert image_score(MAP, REGION, top=2).tolist() == [4.5, 8.5]
    assert image_score(MAP, REGION, top=100).tolist() == [3, 5.5]
    assert image_score(MAP, REGION, share=0.4).tolist() == [4.5, 8]  # of 5 pixels 2, of 8 pixels 3
    assert image_score(MAP, REGION, share=Fraction(1, 100)).tolist() == [5, 9]
    assert mean_score(MAP, REGION).tolist() == [3, 5.5]
    assert mean_score(MAP).tolist() == MAP.mean((1, 2)).tolist()
    assert counted(MAP, REGION).amin((1, 2)).tolist() == [-torch.inf, 2]
    assert masked(MAP, REGION).sum((1, 2)).tolist() == [15, 44]
    assert average_pooled(MAP[:, None], REGION).tolist() == [[3], [5.5]]
    assert average_pooled(MAP[:, None], None).tolist() == [[4.875], [5.5]]


def test_a_position_counts_where_half_of_its_pixels_do():
    region = torch.zeros(1, 4, 8, dtype=torch.bool)
    region[0, :, :3] = True  # all of the first cell, half of the second
    assert at_grid(region, (2, 4)).tolist() == [[[True, True, False, False]] * 2]
    assert at_grid(region, (4, 8)) is region
    assert at_grid(None, (2, 4)) is None


def test_a_thin_region_has_the_positions_that_it_covers_most():
    region = torch.zeros(1, 8, 8, dtype=torch.bool)
    region[0, 0, 0] = region[0, 5, 5] = region[0, 5, 6] = True
    counts = at_grid(region, (2, 2))
    assert counts.tolist() == [[[False, False], [False, True]]]


@pytest.mark.parametrize("how", [{}, {"top": 3}, {"share": 0.3}])
def test_a_region_of_all_pixels_changes_nothing(how):
    map_ = torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(0))
    whole = torch.ones(3, 14, 18, dtype=torch.bool)
    assert torch.equal(image_score(map_, whole, **how), image_score(map_, **how))
