import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from iadbe.layers.synthetic import perlin
from iadbe.layers.synthetic.perlin import (
    combined_perlin_masks,
    nonempty_perlin_masks,
    perlin_masks,
    perlin_masks_within,
    perlin_noise,
    without_small_regions,
)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_it_follows_from_the_generator():
    one, two, other = (perlin_noise(3, 20, 30, source(s)) for s in (0, 0, 1))
    assert one.shape == (3, 1, 20, 30)
    assert torch.equal(one, two)
    assert not torch.allclose(one, other, atol=0.1)


def test_noise_is_that_of_the_definition():
    """One point, literally: four slopes, mixed by the fading curve."""
    direction = torch.rand(1, 9, generator=source()) * 2 * math.pi
    y, x = 1.3, 0.6
    mixed = 0.0
    for i in (1, 2):
        for j in (0, 1):
            angle = float(direction[0, i * 3 + j])
            near = [1 - abs(d) for d in (y - i, x - j)]
            fade = [6 * t**5 - 15 * t**4 + 10 * t**3 for t in near]
            mixed += fade[0] * fade[1] * (math.cos(angle) * (y - i) + math.sin(angle) * (x - j))
    found = perlin._noise(torch.tensor([[[y]]]), torch.tensor([[[x]]]), direction, 3)
    assert float(found) == pytest.approx(math.sqrt(2) * mixed, abs=1e-5)


def test_noise_is_zero_on_the_lattice_and_smooth_across_it():
    direction = torch.rand(1, 16, generator=source()) * 2 * math.pi
    line = torch.linspace(0, 2.999, 3000)
    found = perlin._noise(line.view(1, 1, -1), torch.full((1, 1, 3000), 1.5), direction, 4)[0, 0]
    assert float(found.diff().abs().max()) < 0.005
    whole = torch.arange(3.0).view(1, 1, -1)
    assert float(perlin._noise(whole, whole, direction, 4).abs().max()) == 0


def test_scales_say_how_fine_the_noise_is():
    coarse, fine = (perlin_noise(16, 64, 64, source(), (s,)) for s in (1, 4))
    assert fine.diff(dim=-1).abs().mean() > 4 * coarse.diff(dim=-1).abs().mean()
    for noise in (coarse, fine):
        assert abs(float(noise.mean())) < 0.1
        assert float(noise.abs().max()) < 1.01
    assert float(fine[..., :8, :8].std()) == pytest.approx(float(fine.std()), rel=0.2)  # corners are as full


def test_noise_that_is_not_rotated_starts_with_the_lattice_at_the_corner():
    """With two cells along each side, the centre is a point of the lattice, where noise is 0."""
    straight, rotated = (perlin_noise(8, 3, 3, source(), (1,), rotated=r)[:, 0, 1, 1] for r in (False, True))
    torch.testing.assert_close(straight, torch.zeros(8), atol=1e-6, rtol=0)
    assert float(rotated.abs().min()) > 1e-3


def test_masks_cover_a_part_of_most_images():
    masks = perlin_masks(200, 64, 64, source())
    assert masks.dtype == torch.bool
    assert masks.shape == (200, 1, 64, 64)
    share = masks.float().mean((1, 2, 3))
    assert 0.03 < float(share.mean()) < 0.3
    assert float((share > 0).float().mean()) > 0.7
    assert perlin_masks(200, 64, 64, source(), threshold=0.2).float().mean() > 2 * share.mean()


def test_small_regions_are_removed_and_corners_connect():
    mask = torch.zeros(1, 1, 20, 50, dtype=torch.bool)
    mask[0, 0, 0, 0] = True  # a region of one pixel
    mask[0, 0, 5, 5] = mask[0, 0, 6, 6] = True  # one of two pixels that touch at a corner
    found = without_small_regions(mask, 2 / 1000)
    assert found.nonzero().tolist() == [[0, 0, 5, 5], [0, 0, 6, 6]]
    assert not without_small_regions(mask, 3 / 1000).any()


def test_empty_masks_are_drawn_again():
    assert not perlin_masks(300, 48, 48, source()).flatten(1).any(1).all()
    masks = nonempty_perlin_masks(300, 48, 48, source())
    assert masks.flatten(1).any(1).all()
    assert torch.equal(masks, without_small_regions(masks, 0.001))
    assert torch.equal(masks, nonempty_perlin_masks(300, 48, 48, source()))


@pytest.mark.parametrize("min_region", [0.9, 1.1])
def test_redrawing_ends_where_no_mask_can_be_large_enough(min_region, monkeypatch):
    drawn = []
    draw = perlin.perlin_masks
    monkeypatch.setattr(perlin, "perlin_masks", lambda count, *more: drawn.append(count) or draw(count, *more))
    masks = nonempty_perlin_masks(6, 32, 32, source(), min_region)
    assert drawn == [6] * perlin.DRAWS
    assert masks.flatten(1).any(1).all()
    assert all(ndimage.label(mask[0].numpy(), np.ones((3, 3)))[1] == 1 for mask in masks)  # one region each
    assert masks.float().mean() < 0.5
    assert torch.equal(masks, nonempty_perlin_masks(6, 32, 32, source(), min_region))


def test_the_largest_region_is_kept_and_an_empty_mask_becomes_full():
    masks = torch.zeros(2, 1, 6, 6, dtype=torch.bool)
    masks[0, 0, 0, 0] = masks[0, 0, 3, 3] = masks[0, 0, 4, 4] = True
    found = perlin._largest_region(masks)
    assert found[0].nonzero().tolist() == [[0, 3, 3], [0, 4, 4]]
    assert found[1].all()


def test_combined_masks_are_one_or_two_perlin_masks_in_a_region():
    """With the numbers drawn again: alone, united or intersected, each in a third of the images."""
    region = torch.ones(300, 1, 48, 48, dtype=torch.bool)
    found = combined_perlin_masks(300, 48, 48, source(), region)
    generator = source()
    one, two = perlin_masks(600, 48, 48, generator).chunk(2)
    kinds = [0, 0, 0]
    for mask, a, b, u in zip(found, one, two, torch.rand(300, generator=generator), strict=True):
        kind = 0 if u > 2 / 3 else 1 if u > 1 / 3 else 2
        expected = (a | b, a & b, a)[kind]
        if expected.any():
            assert torch.equal(mask, expected)
            kinds[kind] += 1
    assert min(kinds) > 25
    assert found.flatten(1).any(1).all()
    half = region.clone()
    half[..., :24] = False
    within = combined_perlin_masks(300, 48, 48, source(), half)
    assert within.flatten(1).any(1).all()
    assert not within[..., :24].any()
    assert not combined_perlin_masks(2, 48, 48, source(), torch.zeros_like(region[:2])).any()


def test_masks_within_a_region_are_drawn_again_where_they_are_empty_there():
    region = torch.zeros(200, 1, 48, 48, dtype=torch.bool)
    region[..., 30:40, 30:40] = True
    found = perlin_masks_within(region, source())
    assert not (found & ~region).any()
    assert found.flatten(1).any(1).all()
    first = perlin_masks(200, 48, 48, source()) & region
    filled = first.flatten(1).any(1)
    assert 20 < int(filled.sum()) < 180  # so some are drawn again
    assert torch.equal(found[filled], first[filled])
    assert not perlin_masks_within(torch.zeros_like(region[:2]), source()).any()
