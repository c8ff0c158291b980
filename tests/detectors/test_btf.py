import math

import numpy as np
import pytest
import torch

import dataset_trees
from iadbe.data.images import Images, View
from iadbe.datasets.mvtec_3d import MVTec3D
from iadbe.datasets.toy import Toy
from iadbe.detectors.btf import BTF, histogram_map
from iadbe.errors import BadConfig, BadDetector
from iadbe.types import TrainingImage

TOY = Toy(depth=True)
SMALL = {"backbone": "resnet10t", "layers": (1, 2), "weights": "none"}


def castings(split="train", count=6, kind=None, size=64):
    chosen = [s for s in TOY.samples() if s.split == split and kind in (None, s.defect)][-count:]
    return Images(TOY, [TrainingImage(s) for s in chosen], View(size), depth=True)


def fitted(train=None, seed=0, **params):
    detector = BTF(**{**SMALL, **params}).eval()
    detector.fit(train or castings(), np.random.default_rng(seed))
    return detector


def test_colours_and_histograms_share_the_grid_of_the_first_layer():
    (batch,) = castings(count=2).batches()
    parts = {f: BTF(**SMALL, features=f) for f in ("both", "fpfh", "rgb")}
    for detector in parts.values():
        detector.draws = torch.rand(1000, 50, generator=torch.Generator().manual_seed(0))
    found = {f: detector._patches(batch) for f, detector in parts.items()}
    assert found["fpfh"].shape == (2, 33, 16, 16)
    torch.testing.assert_close(found["both"], torch.cat([found["rgb"], found["fpfh"]], 1))


def test_histograms_are_those_of_measured_pixels_and_zero_elsewhere():
    (batch,) = castings(count=1).batches()
    cloud = batch.points[0]
    map_ = histogram_map(cloud, 0.05)
    missing = cloud[2].isnan()
    assert missing.any()
    assert (map_[:, missing] == 0).all()
    sums = map_.view(3, 11, 64, 64).sum(1)[:, ~missing]
    torch.testing.assert_close(sums, torch.full_like(sums, 200.0), rtol=1e-4, atol=0)  # the point's own, and around
    assert (histogram_map(torch.full_like(cloud, torch.nan), 0.05) == 0).all()


def test_the_belt_is_blanked_in_image_and_cloud():
    detector = fitted()
    (batch,) = castings(count=2).batches()
    seen, clouds = detector._cleaned(batch, batch.points)
    black = (seen.image == 0).all(1)
    assert black[:, :6].float().mean() > 0.95
    assert black[:, 28:34, 12:20].float().mean() < 0.2
    assert clouds[:, 2, :6].isnan().all()
    assert set(seen.keys).isdisjoint(batch.keys)
    torch.testing.assert_close(
        seen.image[~black[:, None].expand(-1, 3, -1, -1)], batch.image[~black[:, None].expand(-1, 3, -1, -1)]
    )


def test_the_score_is_the_authors_formula():
    detector = fitted(features="fpfh", neighbours=3)
    bank = detector.bank.double()
    (batch,) = castings("test", 3, "dent").batches()
    found = detector.predict(batch)
    detector.neighbours = 1
    largest = detector.predict(batch).score
    for features, score, plain in zip(detector._patches(batch), found.score, largest, strict=True):
        patches = features.flatten(1).T.double()
        distance = torch.cdist(patches, bank)
        smallest, nearest = distance.min(1)
        worst = int(smallest.argmax())
        star = smallest[worst]
        of_bank = torch.cdist(bank[nearest[worst]][None], bank)[0]
        others = of_bank.argsort()[1:3]  # the first is itself
        root = math.sqrt(33)
        around = sum(math.exp(float((patches[worst] - bank[j]).norm()) / root) for j in others)
        weight = 1 - math.exp(float(star) / root) / around
        assert float(score) == pytest.approx(weight * float(star), rel=1e-4)
        assert float(plain) == pytest.approx(float(star), rel=1e-4)


def test_balanced_colours_vary_as_much_as_histograms():
    train = castings()
    detector = fitted(train)
    rows = torch.cat([detector._patches(b).permute(0, 2, 3, 1).flatten(0, 2) for b in train.batches()])
    variance = rows.var(0, correction=0)
    assert float(variance[:-33].sum()) == pytest.approx(float(variance[-33:].sum()), rel=1e-3)
    assert float(fitted(train, balance=False).scale) == 1


def test_deformations_are_found_by_the_cloud():
    detector = fitted(castings(count=8, size=96), features="fpfh")
    good, bad = (
        torch.cat([detector.predict(b).score for b in castings("test", 4, kind, 96).batches()])
        for kind in ("good", "bump")
    )
    assert (bad[:, None] > good).float().mean() > 0.9


def test_point_clouds_of_mvtec_3d_are_read(tmp_path):
    pytest.importorskip("tifffile")
    dataset = MVTec3D(dataset_trees.mvtec_3d(tmp_path)["root"])
    train = [TrainingImage(s) for s in dataset.samples() if s.category == "bagel" and s.split == "train"]
    images = Images(dataset, train, View(32), depth=True)
    detector = fitted(images, voxel=2.0)  # its unit is a pixel
    (batch,) = images.batches()
    assert torch.isfinite(detector.predict(batch).map).all()


def test_merged_banks_have_the_colours_of_one_scale():
    one, two = fitted(castings(count=3)), fitted(castings("test", 3), seed=1)
    merged = BTF(**SMALL).eval()
    merged.merge([one, two])
    assert len(merged.bank) == len(one.bank) + len(two.bank)
    back = merged.bank[len(one.bank) :].clone()
    back[:, :-33] *= two.scale / one.scale
    torch.testing.assert_close(back, two.bank)
    torch.testing.assert_close(merged.scale, one.scale)


def test_depth_without_a_camera_is_one_sentence():
    (batch,) = castings(count=1).batches()
    object.__setattr__(batch, "points", None)
    with pytest.raises(BadDetector, match="states its camera as focal_length"):
        fitted().predict(batch)


@pytest.mark.parametrize("wrong", [{"coreset": 0.0}, {"voxel": 0.0}, {"neighbours": 0}, {"features": "depth"}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(BadConfig):
        BTF(**SMALL, **wrong)
