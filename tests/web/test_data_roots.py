import io
import json
import zipfile

import pytest

from iadbe.data import resolve
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.running.store import Store
from iadbe.types import UNLABELLED, Sample
from iadbe.web.data_roots import DataRoots, count_images
from iadbe.web.policy import Policy
from part_images import draw_mvtec, draw_parts
from uploads import bomb, image, tiff_of, zip_files, zip_folder


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def data_roots(store):
    return DataRoots(store)


def left(data_roots):
    return [p.name for p in data_roots.root.iterdir()] if data_roots.root.is_dir() else []


@pytest.mark.parametrize("inside", ["", "my data/v1/"])
def test_an_archive_becomes_data(data_roots, tmp_path, inside):
    draw_parts(tmp_path / "parts", 4, 2)
    (tmp_path / "parts/readme.md").write_text("x")
    archive = zip_folder(tmp_path / "parts", tmp_path / "x.zip", inside)
    place = data_roots.upload("mine", archive, Policy())
    assert place.dataset == "folder"
    assert place.uploaded
    assert any("readme.md" in note for note in place.notes)
    counts = next(iter(place.counts.values()))
    assert counts["train"] + counts["test_good"] == 4
    assert counts["test_defective"] == 2
    assert [p.name for p in DataRoots(Store(tmp_path / "runs")).all()] == ["mine"]
    made = resolve.make(place.dataset, {**place.params, "root": str(place.folder)})
    assert made.image(made.samples()[0]).shape == (64, 64, 3)
    assert not list(place.folder.rglob("*.md"))
    data_roots.remove("mine")
    assert left(data_roots) == []


def test_the_layout_of_mvtec_is_recognised(data_roots, tmp_path):
    draw_mvtec(tmp_path / "mvtec")
    place = data_roots.upload("nuts", zip_folder(tmp_path / "mvtec", tmp_path / "x.zip"), Policy())
    assert place.dataset == "mvtec_ad"
    counts = {"train": 8, "val": 0, "test_good": 3, "test_defective": 3, "test_unlabelled": 0}
    assert place.counts == {"nut": counts}


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"../evil.png": image()}, "lies outside the folder"),
        ({"/tmp/evil.png": image()}, "lies outside the folder"),
        ({"good/..\\..\\evil.png": image()}, "lies outside the folder"),
        ({"good/0.png": b"#!/bin/sh\n"}, "is not an image"),
        ({"good/0.png": bomb(20_000, 20_000)}, "20000x20000 pixels"),
        ({"a.txt": b"x"}, "holds no images"),
        ({}, "holds no images"),
        ({f"good/{n}.png": image() for n in range(30)}, "are allowed"),
    ],
)
def test_hostile_archives_leave_no_files(data_roots, tmp_path, files, word):
    with pytest.raises(BadData, match=word):
        data_roots.upload("mine", zip_files(tmp_path / "x.zip", files), Policy(upload_files=20))
    assert left(data_roots) == []
    assert not (tmp_path / "evil.png").exists()
    assert not (tmp_path / "runs/evil.png").exists()


def test_a_link_in_an_archive(data_roots, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        entry = zipfile.ZipInfo("good/link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    (tmp_path / "x.zip").write_bytes(data.getvalue())
    with pytest.raises(BadData, match="neither a file nor a folder"):
        data_roots.upload("mine", tmp_path / "x.zip", Policy())
    assert left(data_roots) == []


def test_an_archive_bomb_is_refused_before_unpacking(data_roots, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good/0.png", b"\0" * 3_000_000)
    with pytest.raises(BadData, match="bomb"):
        data_roots.upload("mine", tmp_path / "x.zip", Policy(upload=500_000))
    assert left(data_roots) == []


@pytest.mark.parametrize("data", [b"", b"Rar!", b"PK\x03\x04" + b"x" * 50, b"\x1f\x8b" + b"x" * 50])
def test_other_files_than_zips_are_refused(data_roots, tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadData, match="mine is no"):
        data_roots.upload("mine", tmp_path / "x.zip", Policy())


@pytest.mark.parametrize("name", ["", "a", "../x", "A", "x" * 41, ".part-1", "toy", "a b", "a/b", "\u00e4\u00e4"])
def test_invalid_names_are_refused(data_roots, tmp_path, name):
    with pytest.raises(BadConfig, match="name"):
        data_roots.upload(name, tmp_path / "x.zip", Policy())
    with pytest.raises((UnknownName, BadConfig)):
        data_roots.remove(name)


def test_names_are_unique(data_roots, tmp_path):
    draw_parts(tmp_path / "parts", 4, 2)
    archive = zip_folder(tmp_path / "parts", tmp_path / "x.zip")
    data_roots.upload("mine", archive, Policy())
    with pytest.raises(BadConfig, match="already"):
        data_roots.upload("mine", archive, Policy())


def test_data_of_the_operator_cannot_be_removed(store, tmp_path):
    draw_parts(tmp_path / "parts", 4, 2)
    data_roots = DataRoots(store, {"parts": tmp_path / "parts"})
    assert data_roots.get("parts").dataset == "folder"
    with pytest.raises(BadConfig, match="was not uploaded"):
        data_roots.remove("parts")
    assert (tmp_path / "parts/good").is_dir()


def test_a_partly_removed_data_root_is_not_listed(data_roots, tmp_path):
    (data_roots.root / "half").mkdir(parents=True)
    (data_roots.root / "half/place.json").write_text("{")
    (data_roots.root / "other").mkdir()
    (data_roots.root / "other/place.json").write_text(json.dumps({"folder": "data"}))
    assert data_roots.all() == []


def test_what_has_no_label_is_neither_good_nor_defective():
    kinds = [("train", "good"), ("val", "good"), ("test", "good"), ("test", "dent"), ("test", UNLABELLED)]
    samples = [Sample(str(n), "can", split, defect, f"{n}.png") for n, (split, defect) in enumerate(kinds)]
    assert count_images(["can"], samples) == {
        "can": {"train": 1, "val": 1, "test_good": 1, "test_defective": 1, "test_unlabelled": 1}
    }


def test_every_page_of_an_uploaded_tiff_is_limited(data_roots, tmp_path):
    files = {f"good/{n}.png": image() for n in range(3)} | {"good/a.tif": tiff_of([(3, 2), (30_000, 2_000)])}
    with pytest.raises(BadData, match=r"a page of good/a\.tif has 60 million pixels; 50 million are allowed"):
        data_roots.upload("mine", zip_files(tmp_path / "x.zip", files), Policy())
    assert left(data_roots) == []
