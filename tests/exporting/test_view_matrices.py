"""The view in a graph is the view of Pillow, to the last bit; maps come back as the view brings them back."""

from itertools import product

import numpy as np
import pytest
import torch

from exported_models import random_image
from iadbe.data.view import View
from iadbe.exporting.view_matrices import ViewMatrices

SIZES = ((64, 64), (37, 91), (300, 200), (129, 64), (20, 700), (500, 33))
VIEWS = [View(64, crop, fit, width) for fit, crop, width in product(("squash", "pad", "crop"), (0, 40), (0, 96))]


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
class TestAnySize:
    def test_pixels_are_equal_to_the_last_bit(self, view, size):
        image = random_image(*size)
        found = ViewMatrices(view, torch.from_numpy(image)[None]).to_view(torch.from_numpy(image)[None])
        assert np.array_equal(found[0].permute(1, 2, 0).numpy(), view(image))

    def test_maps_come_back_as_the_view_brings_them(self, view, size):
        map_ = np.random.default_rng(1).random(view.shape).astype(np.float32)
        found = ViewMatrices(view, torch.empty(1, *size, 3)).to_native(torch.from_numpy(map_)[None])
        assert np.allclose(found[0].numpy(), view.to_native(map_, size), atol=2e-5)

    def test_padding_does_not_count(self, view, size):
        found, expected = ViewMatrices(view, torch.empty(1, *size, 3)).counts(), view.content(*size)
        everything = np.ones(view.shape, bool)
        assert np.array_equal(
            everything if found is None else found.numpy(), everything if expected is None else expected
        )


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_image_stays_even(value):
    image = torch.full((1, 123, 77, 3), value, dtype=torch.uint8)
    assert bool((ViewMatrices(View(50), image).to_view(image) == value).all())


def test_images_of_a_batch_are_independent():
    images = torch.from_numpy(np.stack([random_image(70, 90, seed) for seed in range(3)]))
    matrices = ViewMatrices(View(32), images)
    assert torch.equal(matrices.to_view(images)[1:2], matrices.to_view(images[1:2]))
