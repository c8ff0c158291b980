import shutil

import numpy as np
import pytest

from dataset_trees import draw, mvtec_3d, real
from iadbe.datasets.mvtec_3d import MVTec3D
from iadbe.errors import BadData


def test_image_mask_and_depth_belong_together_by_their_stem(tmp_path):
    dataset = MVTec3D(**mvtec_3d(tmp_path))
    hole = next(s for s in dataset.samples() if s.defect == "hole")
    assert (hole.image, hole.mask, hole.depth) == (
        "bagel/test/hole/rgb/000.png", "bagel/test/hole/gt/000.png", "bagel/test/hole/xyz/000.tiff",
    )  # fmt: skip
    assert {s.mask for s in dataset.samples() if not s.is_anomaly} == {None}  # although black ones are there
    assert {s.split for s in dataset.samples()} == {"train", "val", "test"}


def test_depth_is_z_and_no_number_where_nothing_was_measured(tmp_path):
    dataset = MVTec3D(**mvtec_3d(tmp_path))
    depth = dataset.depth(dataset.samples()[0])
    points = dataset.points(dataset.samples()[0])
    assert np.array_equal(points[:, :, 2], depth, equal_nan=True)
    assert np.nanmax(points[:, :, 0]) == 27
    assert np.isnan(depth[0]).all()
    assert depth[3, 20] == pytest.approx(3 + 2.0)


def test_the_size_of_a_point_cloud_is_part_of_the_digest(tmp_path):
    dataset = MVTec3D(**mvtec_3d(tmp_path))
    before = dataset.digest()
    file = tmp_path / dataset.samples()[0].depth
    file.write_bytes(file.read_bytes() + b"more")
    assert dataset.digest() != before


def test_without_point_clouds_it_promises_none(tmp_path):
    given = mvtec_3d(tmp_path)
    assert "depth" in MVTec3D(**given).gives
    for folder in tmp_path.rglob("xyz"):
        shutil.rmtree(folder)
    dataset = MVTec3D(**given)
    assert dataset.gives == {"image", "mask"}
    assert dataset.depth(dataset.samples()[0]) is None
    assert "depth" in MVTec3D.gives  # of the class, which its card tells


def test_flat_folders_are_refused(tmp_path):
    draw(tmp_path / "bagel/train/good/0.png")
    with pytest.raises(BadData, match=r"looked for CATEGORY/train/good/rgb/\*\.png"):
        MVTec3D(str(tmp_path))


def test_real_tires():
    dataset = MVTec3D(str(real("mvtec_3d")))
    assert MVTec3D.recognise(real("mvtec_3d") / "tire").description == "the MVTec 3D-AD layout (category tire)"
    assert "depth" not in dataset.gives
    count = [(s.split, s.defect) for s in dataset.samples()].count
    assert count(("train", "good")) == 60
    assert count(("val", "good")) == 10
    defective = [s for s in dataset.samples() if s.is_anomaly]
    assert {s.defect for s in defective} == {"combined", "contamination", "cut", "hole"}
    for s in defective:
        mask = dataset.mask(s)
        assert mask.any()
        assert mask.shape == dataset.image(s).shape[:2]
