"""Pixels that do not count: hand-computed cases."""

from fractions import Fraction

import pytest
import torch
import torch.nn.functional as F

from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import (
    at_grid,
    average_pooled,
    counted,
    counted_places,
    image_score,
    joined,
    masked,
    max_pooled,
    mean_score,
    moved_alike,
    rows_within,
    within,
)

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


def test_what_lies_within_by_hand():
    assert within(MAP, REGION).tolist() == [1, 2, 3, 4, 5, 9, 8, 7, 6, 5, 4, 3, 2]
    features = torch.stack([MAP, -MAP], 1)
    assert torch.equal(within(features, REGION), torch.stack([within(MAP, REGION), -within(MAP, REGION)], 1))
    assert torch.equal(rows_within(features, REGION), within(features, REGION))
    assert within(features, None) is features
    assert torch.equal(rows_within(features, None), flattened(features))
    assert counted_places(features, REGION).tolist() == [1, 2, 3, 5, 6, *range(8, 16)]
    assert counted_places(features, None).tolist() == list(range(16))
    assert torch.equal(flattened(features)[counted_places(features, REGION)], rows_within(features, REGION))
    assert max_pooled(features, REGION).tolist() == [[5, -1], [9, -2]]
    assert max_pooled(features, None).tolist() == [[9, -1], [9, -2]]
    assert mean_score(features, REGION).tolist() == [0, 0]


def test_a_mean_loss_within_is_one_over_what_counts():
    generator = torch.Generator().manual_seed(0)
    found, truth = (torch.rand(2, 3, 6, 8, generator=generator, requires_grad=True) for _ in range(2))
    region = torch.rand(2, 12, 16, generator=generator) < 0.5
    counts = at_grid(region, (6, 8))[:, None].expand(2, 3, 6, 8)
    for loss in (F.mse_loss, F.l1_loss, F.smooth_l1_loss):
        expected = loss(found, truth, reduction="none")[counts].mean()
        torch.testing.assert_close(loss(within(found, region), within(truth, region)), expected)
    (gradient,) = torch.autograd.grad(F.mse_loss(within(found, region), within(truth, region)), found)
    assert torch.equal(gradient != 0, counts)


def test_where_nothing_counts_nothing_is_taught():
    values = torch.rand(2, 3, 4, 4, requires_grad=True)
    nothing = torch.zeros(2, 8, 8, dtype=torch.bool)
    assert not at_grid(nothing, (4, 4)).any()
    (gradient,) = torch.autograd.grad(within(values, nothing).square().mean(), values)
    assert not gradient.any()
    assert torch.isfinite(average_pooled(values, nothing)).all()
    assert torch.isfinite(mean_score(values, nothing)).all()


def test_a_region_moves_with_its_image():
    image, region = torch.rand(2, 3, 4, 6), torch.zeros(2, 4, 6, dtype=torch.bool)
    region[:, :, :2] = True
    flipped, counts = moved_alike(lambda x: x.flip(3), image, region)
    assert torch.equal(flipped, image.flip(3))
    assert torch.equal(counts, region.flip(2))
    flipped, counts = moved_alike(lambda x: x.flip(3), image, None)
    assert torch.equal(flipped, image.flip(3))
    assert counts is None


def test_regions_of_several_batches_become_one():
    first, second = torch.rand(2, 3, 2, 4), torch.rand(1, 3, 2, 4)
    assert joined((first, None), (second, None)) is None
    both = joined((first, REGION), (second, None))
    assert torch.equal(both, torch.cat([REGION, torch.ones(1, 2, 4, dtype=torch.bool)]))
