from typing import ClassVar

import pytest

from dataset_trees import draw, draw_mask, mvtec_like
from iadbe.data.mvtec_layout import MVTecLayout
from iadbe.errors import BadData


class Parts(MVTecLayout):
    """A dataset with folders of its own names."""

    title: ClassVar[str] = "Parts"
    category_names: ClassVar[tuple[str, ...]] = ("bolt", "nut", "pin")
    good_folder: ClassVar[str] = "fine"
    test_folder: ClassVar[str] = "trial"
    mask_folder: ClassVar[str] = "trial/marks"
    image_subfolder: ClassVar[str] = "/photo"


@pytest.fixture
def root(tmp_path):
    for place in ("train/fine", "validation/fine", "trial/fine", "trial/hole"):
        draw(tmp_path / f"nut/{place}/photo/7.png")
    draw_mask(tmp_path / "nut/trial/marks/hole/7.png")
    return tmp_path


def test_folders_of_other_names_are_read(root):
    dataset = Parts(str(root))
    assert [(s.id, s.split, s.defect, s.mask) for s in dataset.samples()] == [
        ("nut/train/fine/photo/7.png", "train", "good", None),
        ("nut/validation/fine/photo/7.png", "val", "good", None),
        ("nut/trial/fine/photo/7.png", "test", "good", None),
        ("nut/trial/hole/photo/7.png", "test", "hole", "nut/trial/marks/hole/7.png"),
    ]
    one = Parts(str(root / "nut"))
    assert [s.id for s in one.samples()] == [s.id for s in dataset.samples()]
    assert [s.image for s in one.samples()] == [s.image.removeprefix("nut/") for s in dataset.samples()]


def test_a_layout_of_many_is_recognised_by_its_names(root):
    assert Parts.recognise(root) == ("the Parts layout (category nut)", {}, False, True)
    (root / "nut").rename(root / "shell")
    assert Parts.recognise(root) is None
    assert Parts(str(root)).categories == ("shell",)  # but it is read where it is asked for

    class Own(Parts):
        recognised_by_names: ClassVar[bool] = False

    assert Own.recognise(root) == ("the Parts layout (category shell)", {}, False, False)


def test_one_foreign_name_is_enough_to_doubt(tmp_path):
    class Plain(MVTecLayout):
        category_names: ClassVar[tuple[str, ...]] = ("bolt", "nut")

    mvtec_like(tmp_path, ("bolt", "nut"))
    assert Plain.recognise(tmp_path) is not None
    mvtec_like(tmp_path, ("rivet",))
    assert Plain.recognise(tmp_path) is None


def test_what_was_looked_for_is_reported(tmp_path):
    draw(tmp_path / "train/fine/1.png")
    with pytest.raises(BadData, match=r"layout of Parts: looked for CATEGORY/train/fine/photo/.*found train/"):
        Parts(str(tmp_path))


def test_an_empty_folder_of_masks_is_reported(root):
    (root / "nut/trial/marks/hole/7.png").unlink()
    (root / "nut/trial/marks/hole/7").mkdir()
    dataset = Parts(str(root))
    with pytest.raises(BadData, match="or there are none"):
        dataset.mask(dataset.samples()[-1])
