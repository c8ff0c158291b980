from dataset_trees import dtd_synthetic, mvtec_like
from iadbe.datasets.dtd_synthetic import DTDSynthetic


def test_it_is_the_layout_of_mvtec_ad_under_its_own_names(tmp_path):
    dataset = DTDSynthetic(**dtd_synthetic(tmp_path))
    found = {(s.split, s.defect, s.mask is not None) for s in dataset.samples() if s.category == "Woven_001"}
    assert found == {("train", "good", False), ("test", "good", False), ("test", "bad", True)}
    assert DTDSynthetic.recognise(tmp_path / "Woven_001") == (
        "the DTD-Synthetic layout (category Woven_001)",
        {},
        False,
        True,
    )


def test_other_names_are_not_its_own(tmp_path):
    mvtec_like(tmp_path, ("Woven_001", "bolt"))
    assert DTDSynthetic.recognise(tmp_path) is None
