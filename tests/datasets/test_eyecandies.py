import numpy as np
import pytest

from dataset_trees import draw, eyecandies
from iadbe.datasets.eyecandies import Eyecandies
from iadbe.errors import BadConfig, BadData


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_splits_and_labels(tmp_path):
    dataset = Eyecandies(**eyecandies(tmp_path))
    mine = [s for s in dataset.samples() if s.category == "Lollipop"]
    assert [s.split for s in mine] == ["train"] * 4 + ["val"] * 4 + ["test"] * 4
    assert [s.id for s in mine if s.is_anomaly] == ["Lollipop/test/01", "Lollipop/test/03"]
    assert mine[0].image == "Lollipop/train/data/000_image_5.png"
    assert mine[-1].mask == "Lollipop/test_public/data/03_mask.png"
    assert not [s for s in mine if "private" in s.image]


def test_the_light_chooses_the_image_and_not_the_label(tmp_path):
    given = eyecandies(tmp_path)
    one, other = Eyecandies(**given, light=0), Eyecandies(**given)
    assert [s.id for s in one.samples()] == [s.id for s in other.samples()]
    assert [s.defect for s in one.samples()] == [s.defect for s in other.samples()]
    assert not set(s.image for s in one.samples()) & set(s.image for s in other.samples())
    with pytest.raises(BadConfig, match=r"eyecandies\.light is 6, but the lights are numbered 0 to 5"):
        Eyecandies(**given, light=6)


def test_depth_is_stretched_to_metres(tmp_path):
    dataset = Eyecandies(**eyecandies(tmp_path))
    depth = dataset.depth(dataset.samples()[0])
    points = dataset.points(dataset.samples()[0])
    assert points.shape == (*depth.shape, 3)
    assert points[0, -1, 0] / points[0, -1, 2] == pytest.approx((0.5 - 0.5 / depth.shape[1]) * 512 / 711.11)
    assert depth.shape == (20, 28)
    assert np.allclose(depth[3], np.linspace(2, 3, 28), atol=2e-5)
    (tmp_path / "CandyCane/train/data/000_info_depth.yaml").write_text("min: 1\n")
    with pytest.raises(BadData, match=r"000_info_depth\.yaml lacks the bounds"):
        dataset.depth(dataset.samples()[0])


def test_a_missing_mask_is_reported(tmp_path):
    given = eyecandies(tmp_path)
    (tmp_path / "CandyCane/test_public/data/02_mask.png").unlink()
    with pytest.raises(BadData, match=r"02_mask\.png is missing, so the label of its image is not known"):
        Eyecandies(**given).samples()


def test_one_candy_and_another_layout(tmp_path):
    eyecandies(tmp_path)
    assert Eyecandies(str(tmp_path / "Lollipop")).categories == ("Lollipop",)
    draw(tmp_path / "other/train/data/a.png")
    assert Eyecandies.recognise(tmp_path / "other") is None
    with pytest.raises(BadData, match=r"does not hold CATEGORY/train/data/\*_image_0\.png"):
        Eyecandies(str(tmp_path / "other"))
