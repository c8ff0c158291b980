import torch

from drawn_images import batch, parts
from iadbe.layers.features.views import is_transformer, resized_images, rotated, rotated_images, warped_images
from iadbe.networks import feature_store
from iadbe.networks.backbone import Backbone
from iadbe.networks.feature_store import FeatureStore


def ramp(side=32):
    """An image whose red grows to the right and whose green grows downwards."""
    line = torch.linspace(0, 1, side)
    return torch.stack([line.expand(side, side), line[:, None].expand(side, side), torch.zeros(side, side)])[None]


def test_a_quarter_turn_is_exact_and_counter_clockwise():
    image = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    found = rotated_images(image, torch.tensor([90.0, 180.0]))
    torch.testing.assert_close(found[0], image[0].rot90(1, (1, 2)), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], image[1].rot90(2, (1, 2)), atol=1e-5, rtol=0)


def test_eight_rotations_by_45_degrees_restore_the_centre():
    image = ramp()
    there = rotated_images(image, torch.tensor([45.0]))
    back = rotated_images(there, torch.tensor([-45.0]))
    torch.testing.assert_close(back[..., 12:20, 12:20], image[..., 12:20, 12:20], atol=1e-3, rtol=0)
    assert (there - image)[..., 12:20, 12:20].abs().max() > 0.05


def test_corners_are_filled_by_reflection():
    white = torch.ones(1, 3, 17, 17)
    assert float(rotated_images(white, torch.tensor([33.0])).min()) > 0.999


def test_pixels_are_taken_from_where_the_matrix_says():
    right = torch.tensor([[[1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]])  # a quarter of the image to the right
    found = warped_images(ramp(), right)
    torch.testing.assert_close(found[..., :8], ramp()[..., 8:16], atol=1e-5, rtol=0)


def test_a_full_rotation_changes_nothing():
    shown = batch(parts(1))
    assert rotated(shown, 360) is shown


def test_transformers_are_recognised():
    assert is_transformer(Backbone("test_vit", (0,), "none"))
    assert not is_transformer(Backbone("resnet10t", (1,), "none"))


def test_every_angle_has_a_row_of_its_own_in_the_store(tmp_path):
    backbone, shown = Backbone("test_vit", (0,), "none"), batch(parts(2, side=70))
    views = [rotated(shown, degrees) for degrees in (0, 45, 90)]
    expected = [backbone(view)[0] for view in views]
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        for _ in range(2):
            for view, row in zip(views, expected, strict=True):
                torch.testing.assert_close(backbone(view)[0], row)
    assert (counters.computed, counters.stored) == (6, 6)


def test_keys_that_are_missing_stay_missing():
    shown = batch(parts(1))
    augmented = type(shown)(shown.image)
    assert rotated(augmented, 45).keys is None


def test_images_are_resized_without_aliasing():
    image = torch.zeros(1, 3, 32, 32)
    image[..., ::2] = 1
    assert resized_images(image, 32) is image
    torch.testing.assert_close(resized_images(image, 8)[..., 1:-1], torch.full((1, 3, 8, 6), 0.5), atol=0.01, rtol=0)
    assert resized_images(image, 40).shape == (1, 3, 40, 40)
    assert resized_images(torch.rand(1, 1, 20, 30), 8).shape == (1, 1, 8, 8)
