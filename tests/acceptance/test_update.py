"""Updating a model and comparing both: a law for promotion."""

import shutil

import pytest

import iadbe
from iadbe.acceptance import candidate
from iadbe.errors import BadConfig
from iadbe.monitoring import reference
from part_images import draw


@pytest.fixture
def folders(factory, tmp_path):
    """Return a model, reviewed images and a challenge set of one's own."""
    shutil.copytree(factory.model / "model", tmp_path / "model")
    shutil.copytree(factory.root / "calibration", tmp_path / "reviewed/OK")
    shutil.copytree(factory.root / "good", tmp_path / "challenge/good")
    shutil.copytree(factory.root / "bad/spot", tmp_path / "challenge/spot")
    return tmp_path


def test_an_update_and_its_evidence(folders):
    found = iadbe.update(folders / "model", folders / "reviewed", folders / "challenge")
    assert found.candidate == folders / "model.candidate"
    assert (len(found.gate.present.good), len(found.gate.candidate.bad)) == (12, 6)
    assert [k.name for k in found.gate.candidate.kinds] == ["spot"]
    assert (found.candidate / candidate.EVIDENCE).is_file()
    assert found.gate.passes
    candidate.promote(folders / "model")


def test_a_candidate_that_is_worse_is_not_promoted(folders):
    """The law: whatever is worse by more than the tolerance stays a candidate. Here spots raise its threshold."""
    for number in range(20):
        draw(folders / f"spots/{number}.png", 700 + number, spot=True)
    how = {"calibrate": folders / "spots", "overkill": 0.1, "tolerance": 0.05}
    found = iadbe.update(folders / "model", folders / "reviewed", folders / "challenge", **how)
    assert not found.gate.passes
    assert found.gate.changed("escape").worse > 3
    before = (folders / "model/detector.json").read_bytes()
    with pytest.raises(BadConfig, match="Keep the present model: of the candidate, its escape is"):
        candidate.promote(folders / "model")
    assert (folders / "model/detector.json").read_bytes() == before
    candidate.promote(folders / "model", force=True)
    assert (folders / "model/detector.json").read_bytes() != before


def test_new_thresholds(factory, folders):
    shutil.rmtree(folders / "reviewed/OK")
    shutil.copytree(factory.root / "again/part_0", folders / "reviewed/OK")
    found = iadbe.update(
        folders / "model",
        folders / "reviewed",
        folders / "challenge",
        calibrate=factory.root / "calibration",
        overkill=0.1,
    )
    own = iadbe.load(found.candidate).calibration
    assert "guaranteed by 30 good images" in own.how
    assert own.threshold != iadbe.load(folders / "model").calibration.threshold
    known = [reference.read(path) for path in (found.candidate, folders / "model")]
    assert known[0].channels["brightness"].counts == known[1].channels["brightness"].counts  # the same images
    assert known[0].channels["score"] != known[1].channels["score"]


def test_without_a_challenge_set_nothing_is_compared(folders):
    found = iadbe.update(folders / "model", folders / "reviewed")
    assert found.gate is None
    with pytest.raises(BadConfig, match="was not compared"):
        candidate.promote(folders / "model")


def test_mistakes_are_one_sentence(factory, folders):
    with pytest.raises(BadConfig, match="must hold one folder of good images"):
        iadbe.update(folders / "model", factory.root / "bad")
    with pytest.raises(BadConfig, match="no folder of defective images"):
        iadbe.update(folders / "model", folders / "reviewed", folders / "reviewed")
    shutil.copytree(factory.root / "calibration", folders / "challenge/good", dirs_exist_ok=True)
    with pytest.raises(BadConfig, match="would flatter it"):
        iadbe.update(folders / "model", folders / "reviewed", folders / "challenge")
    with pytest.raises(BadConfig, match="tolerance is a share"):
        iadbe.update(folders / "model", folders / "reviewed", tolerance=2)
