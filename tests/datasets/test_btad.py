import pytest

from dataset_trees import btad, draw_mask, mvtec_like
from iadbe.datasets.btad import BTAD
from iadbe.errors import BadData


def test_ok_is_good_and_ko_is_the_defect(tmp_path):
    dataset = BTAD(**btad(tmp_path))
    found = {(s.split, s.defect, s.image.split("/")[2]) for s in dataset.samples()}
    assert found == {("train", "good", "ok"), ("test", "good", "ok"), ("test", "ko", "ko")}


def test_images_and_masks_may_end_differently(tmp_path):
    given = btad(tmp_path)
    (tmp_path / "03/ground_truth/ko/000_mask.bmp").unlink()
    draw_mask(tmp_path / "03/ground_truth/ko/000.png")
    masks = {s.image: s.mask for s in BTAD(**given).samples() if s.is_anomaly}
    assert masks == {
        "01/test/ko/000.png": "01/ground_truth/ko/000_mask.png",
        "01/test/ko/001.png": "01/ground_truth/ko/001_mask.png",
        "03/test/ko/000.bmp": "03/ground_truth/ko/000.png",
        "03/test/ko/001.bmp": "03/ground_truth/ko/001_mask.bmp",
    }


def test_mvtec_ad_is_not_taken_for_it(tmp_path):
    mvtec_like(tmp_path, ("01",))
    assert BTAD.recognise(tmp_path) is None
    with pytest.raises(BadData, match="looked for CATEGORY/train/ok"):
        BTAD(str(tmp_path))
