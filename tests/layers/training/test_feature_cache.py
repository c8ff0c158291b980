import numpy as np
import torch

from drawn_images import images, parts
from iadbe.layers.training.feature_cache import FeatureCache

TRAIN = images(parts(5, side=16))


class Counted:
    """Two layers of features; counts the images it is asked for."""

    def __init__(self):
        self.images = 0

    def __call__(self, batch):
        self.images += len(batch)
        return [batch.image * 2, batch.image.mean((2, 3), keepdim=True)]


def test_every_image_is_computed_once_whatever_the_order():
    counted = Counted()
    cached = FeatureCache(counted)
    rng = np.random.default_rng(0)
    for epoch in range(3):
        for batch in TRAIN.batches(2, rng):
            for found, expected in zip(cached(batch), Counted()(batch), strict=True):
                assert torch.equal(found, expected)
        assert counted.images == 5, epoch


def test_features_beyond_the_budget_are_computed_again():
    counted = Counted()
    cached = FeatureCache(counted, budget=2 * (3 * 16 * 16 + 3) * 4)
    for _ in range(3):
        for batch in TRAIN.batches(1):
            assert torch.equal(cached(batch)[0], batch.image * 2)
    assert counted.images == 5 + 3 + 3


def test_cached_features_are_copies():
    cached = FeatureCache(Counted())
    batch = next(TRAIN.batches(2))
    expected = cached(batch)[0].clone()
    cached(batch)[0].zero_()
    assert torch.equal(cached(batch)[0], expected)


def test_augmented_images_are_computed_every_time():
    counted = Counted()
    cached = FeatureCache(counted)
    for _ in range(2):
        for batch in TRAIN.batches(5, augment=lambda image, generator: image + 1):
            cached(batch)
    assert counted.images == 10
