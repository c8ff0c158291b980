from dataset_trees import mvtec_ad2
from iadbe.datasets.mvtec_ad2 import MVTecAD2


def test_only_what_has_labels_is_read(tmp_path):
    dataset = MVTecAD2(**mvtec_ad2(tmp_path))
    mine = [s for s in dataset.samples() if s.category == "rice"]
    assert {(s.split, s.defect) for s in mine} == {
        ("train", "good"), ("val", "good"), ("test", "good"), ("test", "bad"),
    }  # fmt: skip
    assert not [s for s in mine if "private" in s.image or "ground_truth" in s.image]
    bad = next(s for s in mine if s.is_anomaly)
    assert bad.mask == "rice/test_public/ground_truth/bad/000_mask.png"
