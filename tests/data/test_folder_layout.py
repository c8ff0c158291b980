import json

import pytest

from dataset_trees import draw
from iadbe.data import folder_layout, resolve
from iadbe.data.check import check


@pytest.fixture
def root(tmp_path):
    for number in range(6):
        draw(tmp_path / f"{number}.png")
    return tmp_path


def annotate(root, label, number=0):
    shapes = [{"label": label, "points": [[2, 3], [10, 3], [10, 7], [2, 7]], "shape_type": "polygon"}]
    content = {"shapes": shapes, "imagePath": f"{number}.png"}
    (root / f"{number}.json").write_text(json.dumps(content), encoding="utf-8")


def test_names_say_which_folder_is_which(tmp_path):
    for name in ("ok/0.png", "ng/dent/0.png", "masks/0.png"):
        draw(tmp_path / name)
    assert folder_layout.parameters(tmp_path) == {"normal_dir": "ok", "abnormal_dir": ("ng",), "mask_dir": "masks"}


def test_without_defects_synthetic_ones_are_tested(root):
    found = folder_layout.match(root)
    assert found.params == {"normal_dir": ".", "test_split_mode": "synthetic"}
    annotate(root, "ok")  # marks no defect
    assert folder_layout.match(root).params["test_split_mode"] == "synthetic"


def test_annotated_defects_are_tested_themselves(root):
    annotate(root, "dent")
    found = resolve.find(str(root))
    assert found.params == {"root": str(root), "normal_dir": "."}
    assert "with annotated defects" in found.notes[0]
    report = check(resolve.make(found.name, found.params))
    assert report.counts[root.name]["test"]["dent"] == 1
    assert report.mask_reading == {"shapes of LabelMe": 1}


def test_nothing_is_said_about_folders_without_names(tmp_path):
    draw(tmp_path / "left/0.png")
    draw(tmp_path / "right/0.png")
    assert folder_layout.match(tmp_path) is None


def recognised(root, *files):
    for name in files:
        draw(root / name)
    return folder_layout.parameters(root)


def test_defects_in_folders_of_their_folder_and_several_good_ones_are_recognised(tmp_path):
    found = recognised(tmp_path / "a", "OK/lot1/0.png", "Dent/deep/1.png", "NG/2.png", "Ground-Truth/1.png")
    assert (found["normal_dir"], found["abnormal_dir"]) == ("OK", ("Dent", "NG"))
    assert found["mask_dir"] == "Ground-Truth"
    found = recognised(tmp_path / "b", "good_1/0.png", "good_2/1.png", "bad_1/2.png")
    assert (found["normal_dir"], found["abnormal_dir"]) == (("good_1", "good_2"), ("bad_1",))
    found = recognised(
        tmp_path / "c", "Training/OK/0.png", "Testing/OK/1.png", "Testing/dent/2.png", "masks/dent/2.png"
    )
    assert found == {
        "normal_dir": "Training/OK", "normal_test_dir": "Testing/OK", "abnormal_dir": ("Testing/dent",),
        "mask_dir": "masks",
    }  # fmt: skip


def test_a_folder_of_segmentations_is_no_kind_of_defect(tmp_path):
    found = recognised(tmp_path, "good/0.png", "scratch/1.png", "segmentation/1.png")
    assert (found["abnormal_dir"], found["mask_dir"]) == (("scratch",), "segmentation")


def test_names_of_the_test_split_beside_those_of_training(tmp_path):
    found = recognised(tmp_path, "train_good/0.png", "test_good/1.png", "test_bad/2.png")
    assert found == {"normal_dir": "train_good", "normal_test_dir": "test_good", "abnormal_dir": ("test_bad",)}


def test_splits_in_other_languages(tmp_path):
    found = recognised(tmp_path, "训练集/正常/0.png", "测试集/正常/1.png", "测试集/划痕/2.png", "掩码/2.png")
    assert (found["normal_dir"], found["normal_test_dir"]) == ("训练集/正常", "测试集/正常")
    assert (found["abnormal_dir"], found["mask_dir"]) == (("测试集/划痕",), "掩码")


def test_images_and_masks_may_each_have_a_folder(tmp_path):
    found = recognised(tmp_path, "images/good/0.png", "images/bad/1.png", "masks/bad/1.png")
    assert found == {"normal_dir": "images/good", "abnormal_dir": ("images/bad",), "mask_dir": "masks"}
    assert recognised(tmp_path / "plain", "images/0.png") is None  # nothing says that all are normal
