import numpy as np
import pytest
from PIL import Image

from dataset_trees import draw, draw_mask, mvtec_ad, real
from iadbe.datasets.mvtec_ad import MVTecAD
from iadbe.errors import BadData, UnknownName


def kinds(dataset, category, split):
    return sorted({s.defect for s in dataset.samples() if s.category == category and s.split == split})


def test_categories_splits_and_kinds_come_from_the_folders(tmp_path):
    dataset = MVTecAD(**mvtec_ad(tmp_path))
    assert dataset.categories == ("bolt", "nut")
    assert kinds(dataset, "nut", "train") == ["good"]
    assert kinds(dataset, "nut", "test") == ["bent", "good", "scratch"]
    bent = next(s for s in dataset.samples() if s.id == "nut/test/bent/001.png")
    assert bent.mask == "nut/ground_truth/bent/001_mask.png"


def test_one_category_is_read_as_the_same_images(tmp_path):
    whole = MVTecAD(**mvtec_ad(tmp_path))
    one = MVTecAD(str(tmp_path / "nut"))
    assert one.categories == ("nut",)
    assert [s.id for s in one.samples()] == [s.id for s in whole.samples() if s.category == "nut"]
    for a, b in zip(one.samples(), [s for s in whole.samples() if s.category == "nut"], strict=True):
        assert np.array_equal(one.image(a), whole.image(b))


def test_masks_are_found_by_stem_and_not_by_position(tmp_path):
    mvtec_ad(tmp_path, ("bolt",))
    (tmp_path / "bolt/ground_truth/bent/000_mask.png").unlink()
    (tmp_path / "bolt/ground_truth/scratch/000_mask.png").rename(tmp_path / "bolt/ground_truth/scratch/000.png")
    masks = {s.id: s.mask for s in MVTecAD(str(tmp_path)).samples() if s.is_anomaly}
    assert masks == {
        "bolt/test/bent/000.png": None,
        "bolt/test/bent/001.png": "bolt/ground_truth/bent/001_mask.png",
        "bolt/test/scratch/000.png": "bolt/ground_truth/scratch/000.png",
        "bolt/test/scratch/001.png": "bolt/ground_truth/scratch/001_mask.png",
    }


def test_a_folder_of_masks_is_united_and_validation_is_read(tmp_path):
    mvtec_ad(tmp_path, ("bolt",))
    draw(tmp_path / "bolt/validation/good/000.png")
    (tmp_path / "bolt/ground_truth/bent/000_mask.png").unlink()
    draw_mask(tmp_path / "bolt/ground_truth/bent/000/000.png")
    other = np.zeros((20, 28), bool)
    other[15:18, 20:25] = True
    draw_mask(tmp_path / "bolt/ground_truth/bent/000/001.png").write_bytes(b"")
    Image.fromarray(other).save(tmp_path / "bolt/ground_truth/bent/000/001.png")
    dataset = MVTecAD(str(tmp_path))
    assert kinds(dataset, "bolt", "val") == ["good"]
    sample = next(s for s in dataset.samples() if s.id == "bolt/test/bent/000.png")
    assert dataset.mask(sample).sum() == 40 + 15


def test_another_layout_is_refused_in_words(tmp_path):
    draw(tmp_path / "good/0.png")
    with pytest.raises(BadData, match=r"not in the layout of MVTec AD: looked for CATEGORY/train/good.*found good"):
        MVTecAD(str(tmp_path))
    assert MVTecAD.recognise(tmp_path) is None


def test_real_bottle_has_no_masks_and_transistor_has_all():
    dataset = MVTecAD(str(real("mvtec_ad")))
    masked = {
        c: {s.mask is not None for s in dataset.samples() if s.category == c and s.is_anomaly}
        for c in dataset.categories
    }
    assert masked == {"bottle": {False}, "transistor": {True}}
    shares = [dataset.mask(s).mean() for s in dataset.samples() if s.mask]
    assert len(shares) == 40
    assert all(0 < share < 0.7 for share in shares)


def test_real_loco_is_read_with_its_folders_of_masks():
    dataset = MVTecAD(str(real("mvtec_loco")))
    masks = [dataset.mask(s) for s in dataset.samples() if s.is_anomaly]
    assert len(masks) == 20
    assert all(m is not None and m.any() for m in masks)


def test_groups_name_the_textures_and_the_objects_that_are_present(tmp_path):
    mvtec_ad(tmp_path, ("bottle", "carpet", "wood"))
    dataset = MVTecAD(str(tmp_path))
    assert dataset.chosen_categories(["textures"]) == ("carpet", "wood")
    assert dataset.chosen_categories(["objects"]) == ("bottle",)
    assert dataset.chosen_categories(["wood", "objects", "wood"]) == ("wood", "bottle")
    assert dataset.chosen_categories(["all"]) == dataset.chosen_categories([]) == ("bottle", "carpet", "wood")
    with pytest.raises(UnknownName, match=r"'texture' here\. Did you mean textures\? .*Groups: all, textures, objects"):
        dataset.chosen_categories(["texture"])
    mvtec_ad(tmp_path / "other", ("bottle",))
    with pytest.raises(UnknownName, match=r"none of the textures is here \(carpet, .*\)\. There are: bottle\.$"):
        MVTecAD(str(tmp_path / "other")).chosen_categories(["textures"])
    assert {c for group in MVTecAD.category_groups.values() for c in group} == set(MVTecAD.counts)
