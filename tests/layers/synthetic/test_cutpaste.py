import math

import pytest
import torch

from iadbe.layers.synthetic import cutpaste
from iadbe.layers.synthetic.cutpaste import cut_paste, cut_paste_scar


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def drawn_images(count=64, height=64, width=96):
    return torch.rand(count, 3, height, width, generator=source(9))


def box(mask):
    """Return top, left, height and width of a mask's bounding box."""
    where = mask.nonzero()
    (top, left), (bottom, right) = where.amin(0).tolist(), where.amax(0).tolist()
    return top, left, bottom - top + 1, right - left + 1


@pytest.mark.parametrize("make", [cut_paste, cut_paste_scar])
def test_it_follows_from_the_generator_and_changes_the_mask_only(make):
    image = drawn_images()
    (one, mask), (two, _), (other, _) = (make(image, source(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert mask.dtype == torch.bool
    assert mask.shape == (64, 1, 64, 96)
    assert mask.flatten(1).any(1).all()
    assert torch.equal(one.masked_fill(mask, 0), image.masked_fill(mask, 0))
    assert 0 <= float(one.min()) <= float(one.max()) <= 1


def test_a_patch_is_a_copied_rectangle():
    """Without jitter its pixels are found in the image, at one place."""
    image = drawn_images(6, 20, 24)
    pasted, mask = cut_paste(image, source(3), jitter=0)
    for before, after, where in zip(image, pasted, mask[:, 0], strict=True):
        top, left, height, width = box(where)
        assert int(where.sum()) == height * width
        patch = after[:, top : top + height, left : left + width]
        places = [
            torch.equal(before[:, y : y + height, x : x + width], patch)
            for y in range(20 - height + 1)
            for x in range(24 - width + 1)
        ]
        assert sum(places) == 1


def test_areas_and_aspects_of_patches_are_those_of_the_paper():
    masks = cut_paste(drawn_images(600, 128, 128), source(), jitter=0)[1][:, 0]
    area = masks.float().mean((1, 2))
    assert 0.018 < float(area.min()) < 0.025
    assert 0.14 < float(area.max()) < 0.155
    assert float(area.mean()) == pytest.approx(0.085, abs=0.004)
    aspect = torch.tensor([h / w for _, _, h, w in map(box, masks)])
    assert 0.27 < float(aspect.min()) < 0.34
    assert 3 < float(aspect.max()) < 3.6
    assert float((aspect > 1).float().mean()) == pytest.approx(0.5, abs=0.07)
    tops = torch.tensor([box(m)[0] + box(m)[2] / 2 for m in masks])
    assert float(tops.mean()) == pytest.approx(64, abs=4)  # anywhere


def test_scars_are_thin_rotated_and_shrink_with_the_scale():
    image = drawn_images(400, 256, 256)[:, :1].expand(-1, 3, -1, -1)
    large, small = (cut_paste_scar(image, source(), scale=scale)[1].float().sum((1, 2, 3)) for scale in (1.0, 0.5))
    assert float(large.mean()) == pytest.approx(9 * 17.5, rel=0.1)
    assert 20 * 0.6 < float(large.min()) < float(large.max()) < 16 * 25 * 1.1
    assert float(small.mean() / large.mean()) == pytest.approx(0.25, rel=0.05)


def test_the_pixels_of_a_scar_are_those_of_the_rotated_box():
    """One box, literally: each pixel's place in the box, rotated back, is a place in the image."""
    y, x = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    image = torch.stack([y / 40, x / 50, torch.zeros_like(x)])[None]  # linear, so that interpolation is exact
    size, cut, paste = torch.tensor([[12.0, 4.0]]), torch.tensor([[15.0, 20.0]]), torch.tensor([[25.0, 30.0]])
    angle = torch.tensor([math.pi / 6])
    found, mask = cutpaste._pasted(image, size, cut, paste, angle, source(), jitter=0)
    inside = 0
    for i in range(40):
        for j in range(50):
            dy, dx = i + 0.5 - 25, j + 0.5 - 30
            v, u = math.cos(angle) * dy - math.sin(angle) * dx, math.sin(angle) * dy + math.cos(angle) * dx
            assert bool(mask[0, 0, i, j]) == (abs(v) < 6 and abs(u) < 2)
            if mask[0, 0, i, j]:
                inside += 1
                assert float(found[0, 0, i, j]) == pytest.approx((15 + v - 0.5) / 40, abs=1e-5)
                assert float(found[0, 1, i, j]) == pytest.approx((20 + u - 0.5) / 50, abs=1e-5)
    assert 40 < inside < 56


def test_a_rotated_scar_lies_within_the_smallest_images():
    masks = cut_paste_scar(drawn_images(200, 16, 16), source())[1]
    assert masks.flatten(1).any(1).all()
