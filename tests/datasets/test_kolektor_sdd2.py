import pytest

from dataset_trees import draw, kolektor_sdd2
from iadbe.datasets.kolektor_sdd2 import KolektorSDD2
from iadbe.errors import BadData


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_defects_of_train_are_left_out_and_masks_determine_the_label(tmp_path):
    dataset = KolektorSDD2(**kolektor_sdd2(tmp_path))
    found = [(s.split, s.defect, s.image, s.mask) for s in dataset.samples()]
    assert len(found) == 6 + 8
    assert [f[2] for f in found[:3]] == ["train/10001.png", "train/10002.png", "train/10003.png"]
    assert [f for f in found if f[1] == "defect"] == [
        ("test", "defect", f"test/{n}.png", f"test/{n}_GT.png") for n in (20000, 20004)
    ]


def test_images_without_masks_are_another_layout(tmp_path):
    for split in ("train", "test"):
        draw(tmp_path / split / "1.png")
    assert KolektorSDD2.recognise(tmp_path) is None
    with pytest.raises(
        BadData, match=r"train/10000\.png with train/10000_GT\.png and test likewise, but test/, train/"
    ):
        KolektorSDD2(str(tmp_path))
