import pytest

from dataset_trees import dagm, draw
from iadbe.datasets.dagm import DAGM
from iadbe.errors import BadData


def test_defects_of_train_are_left_out(tmp_path):
    dataset = DAGM(**dagm(tmp_path))
    assert dataset.categories == ("Class1", "Class10")
    found = [(s.split, s.defect, s.image, s.mask) for s in dataset.samples() if s.category == "Class10"]
    assert [f[0] for f in found] == ["train"] * 6 + ["test"] * 8
    assert [f for f in found if f[1] != "good"] == [
        ("test", "defect", f"Class10/Test/000{n}.PNG", f"Class10/Test/Label/000{n}_label.PNG") for n in (4, 8)
    ]


def test_one_class_is_read_as_the_same_images(tmp_path):
    whole, one = DAGM(**dagm(tmp_path)), DAGM(str(tmp_path / "Class1"))
    assert [s.id for s in one.samples()] == [s.id for s in whole.samples() if s.category == "Class1"]


def test_another_layout_is_refused_in_words(tmp_path):
    draw(tmp_path / "Class1/Train/1.PNG")
    assert DAGM.recognise(tmp_path) is None
    with pytest.raises(BadData, match=r"does not hold Class1/Train/\*\.PNG with Class1/Train/Label, but Class1/"):
        DAGM(str(tmp_path))
