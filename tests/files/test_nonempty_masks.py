import os

import pytest

from dataset_trees import draw_mask
from iadbe.errors import BadData
from iadbe.files import mask_io
from iadbe.files.nonempty_masks import nonempty_masks


@pytest.fixture
def reads(tmp_path, monkeypatch):
    """Masks a (a defect), b (none), c (none), and the list of those that were decoded."""
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "cache"))
    for name, value in (("a", 255), ("b", 0), ("c", 0)):
        draw_mask(tmp_path / f"data/{name}.png", value=value)
    done, read = [], mask_io.read_mask
    monkeypatch.setattr(mask_io, "read_mask", lambda path: done.append(path.stem) or read(path))
    return done


NAMES = ["a.png", "b.png", "c.png"]


def test_only_masks_that_changed_are_read_again(tmp_path, reads):
    assert nonempty_masks(tmp_path / "data", NAMES) == {"a.png"}
    assert sorted(reads) == ["a", "b", "c"]
    assert nonempty_masks(tmp_path / "data", NAMES[::-1]) == {"a.png"}
    assert len(reads) == 3
    draw_mask(tmp_path / "data/b.png", value=7)
    os.utime(tmp_path / "data/b.png", ns=(1, 1))
    assert nonempty_masks(tmp_path / "data", NAMES) == {"a.png", "b.png"}
    assert reads[3:] == ["b"]


def test_notes_that_are_broken_or_cannot_be_kept_do_no_harm(tmp_path, reads, monkeypatch):
    nonempty_masks(tmp_path / "data", NAMES)
    (notes,) = (tmp_path / "cache/labels").iterdir()
    for text in ("{", '{"a.png": 3}', "[1]"):
        notes.write_text(text)
        assert nonempty_masks(tmp_path / "data", NAMES) == {"a.png"}
    (tmp_path / "file").touch()
    monkeypatch.setenv("IADBE_CACHE", str(tmp_path / "file"))
    assert nonempty_masks(tmp_path / "data", NAMES) == {"a.png"}


def test_the_same_names_in_another_folder_are_others(tmp_path, reads):
    nonempty_masks(tmp_path / "data", NAMES)
    for name in NAMES:
        draw_mask(tmp_path / "more" / name)
    assert nonempty_masks(tmp_path / "more", NAMES) == set(NAMES)


def test_a_mask_that_cannot_be_read_is_named(tmp_path, reads):
    (tmp_path / "data/b.png").write_bytes(b"")
    for name in ("b.png", "none.png"):
        with pytest.raises(BadData, match=name.replace(".", r"\.")):
            nonempty_masks(tmp_path / "data", [name])
