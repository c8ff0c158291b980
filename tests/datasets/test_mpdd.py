from dataset_trees import mpdd, mvtec_like
from iadbe.datasets.mpdd import MPDD


def test_it_is_the_layout_of_mvtec_ad_under_its_own_names(tmp_path):
    dataset = MPDD(**mpdd(tmp_path))
    found = {(s.split, s.defect, s.mask is not None) for s in dataset.samples() if s.category == "tubes"}
    assert found == {("train", "good", False), ("test", "good", False), ("test", "anomalous", True)}
    assert MPDD.recognise(tmp_path / "tubes") == ("the MPDD layout (category tubes)", {}, False, True)


def test_other_names_are_not_its_own(tmp_path):
    mvtec_like(tmp_path, ("tubes", "bolt"))
    assert MPDD.recognise(tmp_path) is None
