import pytest

from dataset_trees import mvtec_ad2
from iadbe.data import check
from iadbe.datasets.mvtec_ad2 import MVTecAD2
from iadbe.errors import BadConfig, BadData
from iadbe.running import plan
from iadbe.types import UNLABELLED


def test_the_public_split_is_tested_unless_told_otherwise(tmp_path):
    dataset = MVTecAD2(**mvtec_ad2(tmp_path))
    mine = [s for s in dataset.samples() if s.category == "rice"]
    assert {(s.split, s.defect) for s in mine} == {
        ("train", "good"), ("val", "good"), ("test", "good"), ("test", "bad"),
    }  # fmt: skip
    assert not [s for s in mine if "private" in s.image or "ground_truth" in s.image]
    bad = next(s for s in mine if s.is_anomaly)
    assert bad.mask == "rice/test_public/ground_truth/bad/000_mask.png"


@pytest.mark.parametrize(("kind", "suffix"), [("private", "regular"), ("private_mixed", "mixed")])
def test_the_private_splits_have_no_labels(tmp_path, kind, suffix):
    public = MVTecAD2(**mvtec_ad2(tmp_path))
    dataset = MVTecAD2(str(tmp_path), kind)
    tested = [s for s in dataset.samples() if s.split == "test"]
    assert [s.id for s in tested] == [f"{c}/test_{kind}/000_{suffix}.png" for c in ("can", "rice")]
    assert {(s.defect, s.is_anomaly, s.is_labelled, s.mask) for s in tested} == {(UNLABELLED, False, False, None)}
    others = [s for s in dataset.samples() if s.split != "test"]
    assert others == [s for s in public.samples() if s.split != "test"]
    assert dataset.digest() != public.digest()
    (alone,) = (s for s in MVTecAD2(str(tmp_path / "can"), kind).samples() if s.split == "test")
    assert (alone.id, alone.image) == (f"can/test_{kind}/000_{suffix}.png", f"test_{kind}/000_{suffix}.png")


def test_plan_and_check_say_that_there_are_no_metrics(tmp_path):
    mvtec_ad2(tmp_path)
    data = {"name": "mvtec_ad2", "root": str(tmp_path), "test_type": "private"}
    found = plan.expand({"detectors": ["padim"], "data": [data]})
    assert len(found.runs) == 2
    said = "the labels of the test images are not published, so there are scores and no metrics."
    assert [n for n in found.notes if "labels" in n] == [f"{c}: {said}" for c in ("can", "rice")]
    problems = check.check(MVTecAD2(str(tmp_path), "private")).problems
    assert [p.sentence for p in problems if "labels" in p.sentence] == [f"{c}: {said}" for c in ("can", "rice")]
    assert not [p for p in problems if p.grade == "error"]


def test_a_wrong_split_and_a_missing_one_are_one_sentence(tmp_path):
    mvtec_ad2(tmp_path)
    with pytest.raises(BadConfig, match="not one of public, private, private_mixed. Did you mean private"):
        MVTecAD2(str(tmp_path), "privat")
    (tmp_path / "can/test_private/000_regular.png").unlink()
    with pytest.raises(BadData, match=r"found no images in .*can/test_private, which the data set as published has"):
        MVTecAD2(str(tmp_path), "private").samples()
