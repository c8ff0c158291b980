import io
import json
import zipfile

import pytest

from iadbe.data import resolve
from iadbe.errors import BadConfig, BadData, UnknownName
from iadbe.running.store import Store
from iadbe.web.places import Places
from iadbe.web.rules import Rules
from part_images import draw_mvtec, draw_parts
from uploads import bomb, image, packed, zipped


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "runs")


@pytest.fixture
def places(store):
    return Places(store)


def left(places):
    return [p.name for p in places.root.iterdir()] if places.root.is_dir() else []


@pytest.mark.parametrize("inside", ["", "my data/v1/"])
def test_an_archive_becomes_data(places, tmp_path, inside):
    draw_parts(tmp_path / "parts", 4, 2)
    (tmp_path / "parts/readme.md").write_text("x")
    archive = packed(tmp_path / "parts", tmp_path / "x.zip", inside)
    place = places.upload("mine", archive, Rules())
    assert place.dataset == "folder"
    assert place.uploaded
    assert any("readme.md" in note for note in place.notes)
    counts = next(iter(place.counts.values()))
    assert counts["train"] + counts["test_good"] == 4
    assert counts["test_defective"] == 2
    assert [p.name for p in Places(Store(tmp_path / "runs")).all()] == ["mine"]
    made = resolve.make(place.dataset, {**place.params, "root": str(place.folder)})
    assert made.image(made.samples()[0]).shape == (64, 64, 3)
    assert not list(place.folder.rglob("*.md"))
    places.remove("mine")
    assert left(places) == []


def test_the_layout_of_mvtec_is_recognised(places, tmp_path):
    draw_mvtec(tmp_path / "mvtec")
    place = places.upload("nuts", packed(tmp_path / "mvtec", tmp_path / "x.zip"), Rules())
    assert place.dataset == "mvtec_ad"
    assert place.counts == {"nut": {"train": 8, "test_good": 3, "test_defective": 3}}


@pytest.mark.parametrize(
    ("files", "word"),
    [
        ({"../evil.png": image()}, "lies outside the folder"),
        ({"/tmp/evil.png": image()}, "lies outside the folder"),
        ({"good/..\\..\\evil.png": image()}, "lies outside the folder"),
        ({"good/0.png": b"#!/bin/sh\n"}, "is no image"),
        ({"good/0.png": bomb(20_000, 20_000)}, "20000x20000 pixels"),
        ({"a.txt": b"x"}, "holds no images"),
        ({}, "holds no images"),
        ({f"good/{n}.png": image() for n in range(30)}, "are allowed"),
    ],
)
def test_hostile_archives_leave_nothing(places, tmp_path, files, word):
    with pytest.raises(BadData, match=word):
        places.upload("mine", zipped(tmp_path / "x.zip", files), Rules(upload_files=20))
    assert left(places) == []
    assert not (tmp_path / "evil.png").exists()
    assert not (tmp_path / "runs/evil.png").exists()


def test_a_link_in_an_archive(places, tmp_path):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        entry = zipfile.ZipInfo("good/link.png")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    (tmp_path / "x.zip").write_bytes(data.getvalue())
    with pytest.raises(BadData, match="neither a file nor a folder"):
        places.upload("mine", tmp_path / "x.zip", Rules())
    assert left(places) == []


def test_a_bomb_is_refused_before_it_is_unpacked(places, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("good/0.png", b"\0" * 3_000_000)
    with pytest.raises(BadData, match="bomb"):
        places.upload("mine", tmp_path / "x.zip", Rules(upload=500_000))
    assert left(places) == []


@pytest.mark.parametrize("data", [b"", b"Rar!", b"PK\x03\x04" + b"x" * 50, b"\x1f\x8b" + b"x" * 50])
def test_what_is_no_zip(places, tmp_path, data):
    (tmp_path / "x.zip").write_bytes(data)
    with pytest.raises(BadData, match="mine is no"):
        places.upload("mine", tmp_path / "x.zip", Rules())


@pytest.mark.parametrize("name", ["", "a", "../x", "A", "x" * 41, ".part-1", "toy", "a b", "a/b", "\u00e4\u00e4"])
def test_names(places, tmp_path, name):
    with pytest.raises(BadConfig, match="name"):
        places.upload(name, tmp_path / "x.zip", Rules())
    with pytest.raises((UnknownName, BadConfig)):
        places.remove(name)


def test_a_name_is_taken_once(places, tmp_path):
    draw_parts(tmp_path / "parts", 4, 2)
    archive = packed(tmp_path / "parts", tmp_path / "x.zip")
    places.upload("mine", archive, Rules())
    with pytest.raises(BadConfig, match="already"):
        places.upload("mine", archive, Rules())


def test_what_the_operator_names_stays_his(store, tmp_path):
    draw_parts(tmp_path / "parts", 4, 2)
    places = Places(store, {"parts": tmp_path / "parts"})
    assert places.get("parts").dataset == "folder"
    with pytest.raises(BadConfig, match="was not uploaded"):
        places.remove("parts")
    assert (tmp_path / "parts/good").is_dir()


def test_a_place_that_is_half_removed_is_not_there(places, tmp_path):
    (places.root / "half").mkdir(parents=True)
    (places.root / "half/place.json").write_text("{")
    (places.root / "other").mkdir()
    (places.root / "other/place.json").write_text(json.dumps({"folder": "data"}))
    assert places.all() == []
