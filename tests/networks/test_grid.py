from unittest import mock

import pytest
import torch

from iadbe import progress
from iadbe.data.images import Batch
from iadbe.networks.backbone import Backbone
from iadbe.networks.grid import grid_size, on_grid, without_aliasing
from iadbe.networks.timm_loader import load_timm


def network(name):
    return load_timm().create_model(name, pretrained=False, **({"dynamic_img_size": True} if "vit" in name else {}))


@pytest.mark.parametrize(
    ("name", "shown", "size"),
    [
        ("vit_tiny_patch16_224", (72, 100), (64, 96)),  # 4.5 patches are rounded to the even number
        ("vit_small_patch14_dinov2", (72, 100), (70, 98)),
        ("tf_efficientnet_lite0", (72, 100), (72, 100)),
        ("vit_tiny_patch16_224", (5, 32), (16, 32)),
    ],
)
def test_sizes_by_hand(name, shown, size):
    assert grid_size(network(name), *shown) == size
    image = torch.rand(1, 3, *shown)
    assert on_grid(network(name), image).shape == (1, 3, *size)


def test_what_fits_is_left_alone_and_what_is_rounded_is_noted():
    backbone, notes = Backbone("vit_small_patch14_dinov2", (3,), "none"), []
    with progress.collecting_notes(notes):
        assert backbone(Batch(torch.rand(1, 3, 70, 98)))[0].shape[-2:] == (5, 7)
        assert notes == []
        for _ in range(2):
            assert backbone(torch.rand(1, 3, 72, 100))[0].shape[-2:] == (5, 7)
    assert notes == [
        "vit_small_patch14_dinov2 sees images of 70 x 98 pixels instead of 72 x 100 (height x width): its patches must "
        "divide them. Maps and metrics have the size of the view."
    ]


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(32, 50), (60, 98), (37, 41), (224, 224)], ids=str)
def test_images_are_resized_alike_by_matrices_in_an_exported_graph(mode, size):
    image = torch.rand(2, 3, 64, 100, generator=torch.Generator().manual_seed(0))
    with mock.patch("torch.compiler.is_exporting", return_value=True):
        found = without_aliasing(image, size, mode)
    torch.testing.assert_close(found, without_aliasing(image, size, mode), rtol=0, atol=2e-6)
