import json

import pytest

from dataset_trees import draw, real_iad
from iadbe.datasets.real_iad import RealIAD
from iadbe.errors import BadConfig, BadData


def count(dataset):
    mine = [s for s in dataset.samples() if s.category == "zipper"]
    return sum(s.split == "train" for s in mine), sum(s.split == "test" for s in mine), sum(s.is_anomaly for s in mine)


def test_the_lists_decide_what_is_trained_on_and_tested(tmp_path):
    dataset = RealIAD(**real_iad(tmp_path))
    assert count(dataset) == (8, 8, 4)
    bad = next(s for s in dataset.samples() if s.is_anomaly)
    assert bad.defect == "QS"
    assert bad.image == "realiad_256/audiojack/NG/QS/S0007/audiojack_7_QS_C1.jpg"
    assert bad.mask == "realiad_256/audiojack/NG/QS/S0007/audiojack_7_QS_C1_mask.png"


def test_a_single_view_has_lists_of_its_own(tmp_path):
    given = real_iad(tmp_path)
    assert count(RealIAD(**given, views="single")) == (4, 4, 2)
    assert RealIAD.recognise(tmp_path).params == {"views": "all"}
    (tmp_path / "realiad_jsons/realiad_jsons").rename(tmp_path / "gone")
    assert RealIAD.recognise(tmp_path).params == {"views": "single"}
    with pytest.raises(BadConfig, match=r"real_iad\.views is 'both', not one of all, single"):
        RealIAD(**given, views="both")


def test_lists_may_lie_beside_the_images_and_images_have_sizes(tmp_path):
    given = real_iad(tmp_path)
    (tmp_path / "realiad_jsons/realiad_jsons").rename(tmp_path / "lists")
    (tmp_path / "realiad_jsons/realiad_jsons_sv").rename(tmp_path / "realiad_jsons_sv")
    (tmp_path / "realiad_jsons").rmdir()
    (tmp_path / "lists").rename(tmp_path / "realiad_jsons")
    assert count(RealIAD(**given)) == (8, 8, 4)
    (tmp_path / "realiad_256").rename(tmp_path / "realiad_512")
    assert RealIAD(**given).images == "realiad_512"
    with pytest.raises(BadData, match=r"must hold realiad_jsons and realiad_1024, but holds .*realiad_512/"):
        RealIAD(**given, images="realiad_1024")


def test_objects_without_images_are_left_out_and_broken_lists_reported(tmp_path):
    given = real_iad(tmp_path)
    (tmp_path / "realiad_256/zipper").rename(tmp_path / "zipper")
    assert RealIAD(**given).categories == ("audiojack",)
    file = tmp_path / "realiad_jsons/realiad_jsons/audiojack.json"
    listed = json.loads(file.read_text())
    for broken in ("{", "[]", json.dumps(listed | {"test": [{"image_path": "x"}]}), json.dumps({"train": []})):
        file.write_text(broken)
        with pytest.raises(
            BadData, match=r"audiojack\.json(, entry 1 of test is not an image| is not a list of images)"
        ):
            RealIAD(**given).samples()


def test_lists_without_images_are_refused(tmp_path):
    draw(tmp_path / "zipper/OK/1.jpg")
    assert RealIAD.recognise(tmp_path) is None
    with pytest.raises(BadData, match="must hold realiad_jsons and realiad_256 or realiad_512"):
        RealIAD(str(tmp_path))


def test_the_views_of_one_object_share_a_group(tmp_path):
    samples = RealIAD(**real_iad(tmp_path)).samples()
    assert len({s.group for s in samples}) == len(samples) / 2
    assert all(s.group.startswith(f"{s.category}/") for s in samples)


def test_all_entries_that_cannot_be_used_are_named_and_may_be_left_out(tmp_path):
    given = real_iad(tmp_path)
    count_before = len(RealIAD(**given).samples())
    for name in ("audiojack", "zipper"):
        file = tmp_path / f"realiad_jsons/realiad_jsons/{name}.json"
        listed = json.loads(file.read_text())
        del listed["test"][0]["anomaly_class"]
        listed["train"][1] = "x"
        file.write_text(json.dumps(listed))
    with pytest.raises(BadData) as error:
        RealIAD(**given).samples()
    for name in ("audiojack", "zipper"):
        assert f"{name}.json, entry 2 of train" in str(error.value)
        assert f"{name}.json, entry 1 of test" in str(error.value)
    assert len(RealIAD(**given, bad_labels="drop").samples()) == count_before - 4
