import hashlib
from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from iadbe.datasets.mvtec_3d import MVTec3D
from iadbe.datasets.toy import Toy
from iadbe.errors import BadConfig, BadData
from iadbe.files import image_io, mask_io
from iadbe.types import Sample

KINDS = {
    "board": ("bent", "misprint", "missing", "scratch"),
    "fabric": ("colour", "hole", "stain", "thread"),
    "metal": ("crack", "dent", "scratch", "stain"),
    "washer": ("bent", "crack", "missing", "stain"),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "cache"))


def sample(name, toy=None):
    return next(s for s in (toy or Toy()).samples() if s.id == name)


def test_the_index_is_as_promised():
    samples = Toy().samples()
    assert Toy().categories == tuple(KINDS)
    assert len({s.id for s in samples}) == len(samples) == 4 * (40 + 15 + 4 * 6)
    counts = Counter((s.category, s.split, s.defect) for s in samples)
    for category, kinds in KINDS.items():
        assert counts[category, "train", "good"] == 40
        assert counts[category, "test", "good"] == 15
        assert [counts[category, "test", kind] for kind in kinds] == [6] * 4
    assert sample("fabric/test/hole/003") == Sample(
        "fabric/test/hole/003",
        "fabric",
        "test",
        "hole",
        "fabric/test/hole/003.png",
        "fabric/ground_truth/hole/003_mask.png",
    )
    assert all((s.mask is None) == (s.defect == "good") for s in samples)


def test_the_index_is_stable():
    names = "\n".join(s.id for s in Toy().samples())
    assert hashlib.sha256(names.encode()).hexdigest()[:16] == "20fe8744590aa347"
    assert Toy("anywhere").samples() == Toy().samples()


def test_the_digest_follows_the_parameters():
    assert Toy().digest() == Toy("anywhere").digest()
    assert len({Toy().digest(), Toy(size=300).digest(), Toy(count=8).digest()}) == 3


@pytest.mark.parametrize(
    ("name", "sha"),
    [
        ("board/test/misprint/005", "afe5433d0e610d5307d7e7488907ba64a843537a2ad350dc570a2bef4ba961f3"),
        ("fabric/train/good/000", "15d7afbd2018788246bcc86d2b4de8c53b6acddc49d6e75e444454ee166e52f9"),
        ("metal/test/scratch/003", "889d4b2e9a4a8a03e2b0d2de7ce24813b06dd066e5d177247dfe9ad08ead5264"),
        ("washer/test/bent/002", "ca828e4560d8d80b900d6fcf0ee4da85471e0c9f297f9441afd7ace1e49a7c1d"),
    ],
)
def test_every_machine_draws_the_same_bytes(name, sha):
    assert hashlib.sha256(Toy().image(sample(name)).tobytes()).hexdigest() == sha


def test_an_image_is_known_by_its_id_alone():
    few = Toy(count=2)
    name = "metal/train/good/001"
    assert (few.image(sample(name, few)) == Toy().image(sample(name))).all()


def test_good_images_differ_from_one_another():
    images = [Toy().image(sample(f"washer/{split}/good/{k:03d}")) for split in ("train", "test") for k in range(3)]
    for a, b in combinations(images, 2):
        assert np.abs(a.astype(int) - b).mean() > 5


def test_a_caller_may_write_on_what_it_gets():
    one = sample("metal/test/dent/005")
    first, mask = Toy().image(one), Toy().mask(one)
    kept = first.copy(), mask.copy()
    first[:], mask[:] = 0, False
    assert (Toy().image(one) == kept[0]).all()
    assert (Toy().mask(one) == kept[1]).all()


@pytest.mark.slow
@pytest.mark.parametrize("category", KINDS)
def test_every_defect_is_somewhere_and_no_good_part_has_one(category):
    toy = Toy()
    for s in toy.samples():
        if s.category == category and s.split == "test":
            mask = toy.mask(s)
            assert (mask is None) if s.defect == "good" else (16 <= mask.sum() < 0.1 * mask.size), s.id


def test_a_larger_set_is_drawn_larger():
    toy = Toy(size=300)
    one = sample("fabric/test/stain/005", toy)
    assert toy.image(one).shape == (300, 300, 3)
    assert toy.mask(one).shape == (300, 300)


def test_depth_is_another_category_and_plain_toy_stays_as_it_was():
    deep = Toy(depth=True)
    assert deep.categories == ("casting",)
    assert "depth" in deep.gives
    assert "depth" not in Toy().gives
    assert "casting" not in Toy().categories
    counts = Counter((s.split, s.defect) for s in deep.samples())
    assert counts["train", "good"] == 40
    assert counts["test", "good"] == 15
    assert [counts["test", kind] for kind in ("bump", "dent", "missing", "stain")] == [6] * 4
    assert Toy().depth(sample("metal/train/good/000")) is None
    assert Toy().points(sample("metal/train/good/000")) is None


def test_fine_defects_are_another_category_of_large_images():
    fine = Toy(size=1024, count=3, fine=True)
    assert fine.categories == ("panel",)
    counts = Counter((s.split, s.defect) for s in fine.samples())
    assert counts == {
        ("train", "good"): 3, ("test", "good"): 15, ("test", "bridge"): 6, ("test", "pinhole"): 6,
    }  # fmt: skip
    assert "panel" not in Toy().categories
    one = sample("panel/test/bridge/005", fine)
    assert fine.image(one).shape == (1024, 1024, 3)
    assert 0 < fine.mask(one).mean() < 0.001
    for wrong in ({"fine": True}, {"fine": True, "size": 4096}, {"size": 2048}):
        with pytest.raises(BadConfig, match="Give a size from"):
            Toy(**wrong)
    with pytest.raises(BadConfig, match="Give one of the two"):
        Toy(size=1024, fine=True, depth=True)


@pytest.mark.parametrize(
    ("category", "digest"),
    [
        ("board", "d4472ce0a93a7487"),
        ("fabric", "a4427fc3d03f38f4"),
        ("metal", "d70c40b662cf34b0"),
        ("washer", "5bba6f25bb1348d2"),
        ("", "e87bf78500e0e51a"),
    ],
)
def test_the_digests_of_stored_runs_stay(category, digest):
    assert Toy().digest([category] if category else ()) == digest


def test_depth_is_known_by_the_id_and_kept_like_images(tmp_path):
    deep = Toy(depth=True)
    one = sample("casting/test/dent/005", deep)
    depth = deep.depth(one)
    assert depth.dtype == np.float32
    assert depth.shape == (256, 256)
    kept = depth.copy()
    depth[:] = 0
    np.testing.assert_array_equal(Toy(depth=True).depth(one), kept)
    (file,) = (tmp_path / "cache").rglob("*.npy")
    file.write_bytes(b"no numbers")
    np.testing.assert_array_equal(Toy(depth=True).depth(one), kept)
    assert hashlib.sha256(np.nan_to_num(kept).tobytes()).hexdigest()[:16] == "e011e416283a4b58"
    assert hashlib.sha256(deep.image(one).tobytes()).hexdigest()[:16] == "4fe54949cbd48a7a"


def test_points_are_seen_by_a_camera_above_the_belt():
    deep = Toy(depth=True)
    points = deep.points(sample("casting/train/good/000", deep))
    seen = points[np.isfinite(points[:, :, 2])]
    assert 0.95 < len(seen) / 256**2 < 0.995
    assert np.ptp(seen[:, 0]) == pytest.approx(0.1, rel=0.03)  # metres
    assert np.ptp(seen[:, 1]) == pytest.approx(0.1, rel=0.03)
    assert np.median(points[:20, :, 2][np.isfinite(points[:20, :, 2])]) == pytest.approx(0.5, abs=0.003)
    assert 0.485 < seen[:, 2].min() < 0.495


def test_export_with_depth_is_read_as_mvtec_3d(tmp_path, monkeypatch):
    pytest.importorskip("tifffile")
    toy = Toy(depth=True)
    few = tuple(sample(f"casting/{n}", toy) for n in ("train/good/000", "test/good/000", "test/bump/005"))
    monkeypatch.setattr(Toy, "samples", lambda self: few)
    toy.export(tmp_path / "out")
    read = MVTec3D(str(tmp_path / "out"))
    assert "depth" in read.gives
    found = {s.id: s for s in read.samples()}
    assert len(found) == 3
    for s in few:
        other = next(o for o in found.values() if (o.split, o.defect) == (s.split, s.defect))
        assert (read.image(other) == toy.image(s)).all()
        np.testing.assert_array_equal(read.points(other), toy.points(s))
        np.testing.assert_array_equal(read.depth(other), toy.depth(s))
        if s.is_anomaly:
            assert (read.mask(other) == toy.mask(s)).all()


def test_export_writes_what_the_dataset_draws(tmp_path, monkeypatch):
    toy = Toy()
    few = tuple(sample(n) for n in ("metal/train/good/000", "metal/test/good/000", "metal/test/crack/005"))
    monkeypatch.setattr(Toy, "samples", lambda self: few)
    toy.export(tmp_path / "out")
    files = sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png"))
    assert files == [
        "metal/ground_truth/crack/005_mask.png",
        "metal/test/crack/005.png",
        "metal/test/good/000.png",
        "metal/train/good/000.png",
    ]
    for s in few:
        assert (image_io.read_rgb(tmp_path / "out" / s.image) == toy.image(s)).all()
    assert (mask_io.read_mask(tmp_path / "out" / few[2].mask) == toy.mask(few[2])).all()


def test_a_kept_image_is_the_drawn_one_and_a_spoilt_one_is_drawn_again(tmp_path):
    one = sample("metal/test/stain/004")
    drawn = Toy().image(one), Toy().mask(one)
    files = [p for p in (tmp_path / "cache").rglob("*.png")]
    assert len(files) == 2
    assert (Toy().image(one) == drawn[0]).all()
    assert (Toy().mask(one) == drawn[1]).all()
    for file in files:
        file.write_bytes(b"no image")
    assert (Toy().image(one) == drawn[0]).all()
    assert (Toy().mask(one) == drawn[1]).all()


def test_a_mistake_is_one_sentence():
    with pytest.raises(BadConfig, match="cannot be 64 pixels wide"):
        Toy(size=64)
    with pytest.raises(BadConfig, match="at least 1"):
        Toy(count=0)
    with pytest.raises(BadData, match="Did you mean fabric"):
        Toy().image(Sample("fabrik/x", "fabrik", "test", "good", "fabrik/test/good/000.png"))
