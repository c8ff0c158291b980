import numpy as np
import pytest

from dataset_trees import real
from iadbe.data import near_copies, resolve

RNG = np.random.default_rng(0)


def textures(count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8).repeat(2, 1).repeat(2, 2)


def signatures(images):
    return np.stack([near_copies.thumbnail(image) for image in images])


def test_every_altered_copy_finds_its_image():
    images = textures(30)
    copies = [
        images[3][::-1],
        images[4][:, ::-1],
        images[5][::-1, ::-1],
        (images[6] * 0.7 + 20).astype(np.uint8),
        (images[7] + RNG.normal(0, 12, images[7].shape)).clip(0, 255).astype(np.uint8),
    ]
    found = near_copies.find(signatures(copies), signatures(images))
    assert found.nearest.tolist() == [3, 4, 5, 6, 7]
    assert (found.correlation > near_copies.MIN_CORRELATION).all()


def test_what_all_images_share_is_not_alike():
    """Parts of one product: the same drawing, moved and lit differently, with a texture of its own each."""
    y, x = np.mgrid[:128, :128]
    images = []
    for _ in range(60):
        shift, light = RNG.normal(0, 2), RNG.uniform(0.7, 1.1)
        part = 200 * ((x - 64 - shift) ** 2 + (y - 64) ** 2 < 40**2) * light
        images.append((part[..., None] + RNG.normal(0, 25, (128, 128, 1)).repeat(3, 2)).clip(0, 255).astype(np.uint8))
    found = near_copies.find(signatures(images[40:]), signatures(images[:40]))
    assert (found.correlation < near_copies.MIN_CORRELATION).all()


def test_few_images_of_plain_parts_that_differ_by_pose_only_are_no_copies():
    y, x = np.mgrid[:64, :64]
    for count in (12, 40):
        images = []
        for _ in range(count):
            down, right = RNG.normal(0, 1.5, 2)
            disc = np.where((x - 32 - right) ** 2 + (y - 32 - down) ** 2 < 23**2, 170, 60)[..., None]
            images.append((disc + RNG.normal(0, 4, (64, 64, 1)).repeat(3, 2)).clip(0, 255).astype(np.uint8))
        some = signatures(images)
        assert (near_copies.find(some, some, same=True).correlation < near_copies.MIN_CORRELATION).all()


def test_an_image_is_not_its_own_copy():
    some = signatures(textures(12))
    found = near_copies.find(some, some, same=True)
    assert (found.nearest != np.arange(12)).all()
    assert (found.correlation < near_copies.MIN_CORRELATION).all()


@pytest.mark.parametrize(("split", "least", "most"), [("image", 80, 180), ("tile", 0, 3)])
def test_tiles_imaged_under_six_lights_are_near_copies_that_the_split_by_tile_keeps_together(split, least, most):
    dataset = resolve.make("mtd", {"root": str(real("mtd")), "split": split})
    good = [s for s in dataset.samples() if not s.is_anomaly]
    train, test = (signatures([dataset.image(s) for s in good if s.split == side]) for side in ("train", "test"))
    found = near_copies.find(test, train)
    assert least <= (found.correlation > near_copies.MIN_CORRELATION).sum() <= most


def test_real_parts_have_no_near_copies():
    dataset = resolve.make("mvtec_ad", {"root": str(real("mvtec_ad/bottle"))})
    some = dataset.samples()
    train, test = (signatures([dataset.image(s) for s in some if s.split == side]) for side in ("train", "test"))
    assert (near_copies.find(test, train).correlation < near_copies.MIN_CORRELATION).all()
