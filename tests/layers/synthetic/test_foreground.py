import numpy as np
import pytest
import torch
from scipy import ndimage

from drawn_images import batch, parts
from iadbe.layers.synthetic.foreground import majority, object_mask, otsu_threshold, unlike_background


def disc(side=64, radius=0.3, inside=0.8, outside=0.2):
    y, x = torch.meshgrid(torch.arange(side) / side - 0.5, torch.arange(side) / side - 0.5, indexing="ij")
    return torch.where(y**2 + x**2 < radius**2, inside, outside).expand(1, 3, -1, -1)


def test_the_median_filter_is_scipys():
    mask = torch.rand(2, 1, 20, 31, generator=torch.Generator().manual_seed(0)) < 0.5
    for side in (5, 7):
        expected = [ndimage.median_filter(m.numpy().astype(np.uint8), side, mode="nearest") for m in mask[:, 0]]
        assert np.array_equal(majority(mask, side)[:, 0].numpy(), np.stack(expected).astype(bool))


def test_the_threshold_maximises_the_variance_between_classes():
    values = torch.rand(3, 400, generator=torch.Generator().manual_seed(0)) ** 2
    values[1, :150] = values[1, :150] * 0.2 + 0.75
    levels = (values * 255).round().double()
    for row, level, found in zip(values, levels, otsu_threshold(values), strict=True):
        between = []
        for split in range(255):
            low, high = level[level <= split], level[level > split]
            far = float((high.mean() - low.mean()) ** 2) if len(low) and len(high) else 0.0
            between.append(len(low) * len(high) * far)
        assert int(float(found) * 255) == int(np.argmax(between))
        assert 0 < float((row > found).float().mean()) < 1


def test_pixels_unlike_the_background_are_object():
    image = disc(inside=0.5, outside=200 / 255)
    found = unlike_background(image, 200, 60)
    assert float((found == (image[:, :1] < 0.6)).float().mean()) > 0.99
    assert not unlike_background(image, 200, 80).any()


@pytest.mark.parametrize(("inside", "outside"), [(0.8, 0.2), (0.2, 0.8)])
def test_the_object_is_what_differs_from_the_border(inside, outside):
    image = disc(inside=inside, outside=outside)
    found = object_mask(image)
    assert float((found == (image[:, :1] == inside)).float().mean()) > 0.99


def test_holes_are_object():
    ring = torch.where(disc(radius=0.15)[:, :1] == 0.8, 0.2, disc(radius=0.35)).expand(1, 3, -1, -1)
    assert torch.equal(object_mask(ring), object_mask(disc(radius=0.35)))


def test_everything_is_object_where_none_stands_out():
    noise = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    flat = torch.full((1, 3, 64, 64), 0.5)
    stripes = (torch.arange(64) // 16 % 2).float().expand(1, 3, 64, 64)
    tiny = disc(radius=0.05)
    scattered = disc(32, 0.3).repeat(1, 1, 2, 2)
    for image in (noise, flat, stripes, tiny, scattered):
        assert object_mask(image).all()


def test_images_are_independent_of_one_another():
    shown = batch(parts(4)).image
    together = object_mask(shown)
    assert torch.equal(together, torch.cat([object_mask(one) for one in shown.split(1)]))
    assert 0.2 < float(together.float().mean()) < 0.5  # a disc of radius 0.33
