from dataset_trees import mvtec2d_3d, mvtec_like
from iadbe.datasets.mvtec2d_3d import MVTec2D3D


def test_it_is_the_layout_of_mvtec_ad_under_its_own_names(tmp_path):
    dataset = MVTec2D3D(**mvtec2d_3d(tmp_path))
    found = {(s.split, s.defect, s.mask is not None) for s in dataset.samples() if s.category == "bagel"}
    assert found == {("train", "good", False), ("test", "good", False), ("test", "hole", True)}
    assert MVTec2D3D.recognise(tmp_path / "bagel") == ("the MVTec2D-3D layout (category bagel)", {}, False, True)


def test_other_names_are_not_its_own(tmp_path):
    mvtec_like(tmp_path, ("bagel", "bolt"))
    assert MVTec2D3D.recognise(tmp_path) is None
