"""A folder into which images are written."""

import os
import sys

import pytest
from PIL import Image

from iadbe.errors import BadConfig
from iadbe.watching.hot_folder import EMPTY_SECONDS, PATIENCE_SECONDS, HotFolder


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def names(items):
    return [item.name for item in items]


def nothing(key):
    return False


def test_a_file_is_ready_when_it_has_settled(tmp_path, clock):
    folder = HotFolder(tmp_path, settle=0.5, clock=clock)
    file = tmp_path / "a.png"
    file.write_bytes(b"x")
    assert folder.ready(nothing) == []
    assert folder.waiting == 1
    clock.now += 0.4
    file.write_bytes(b"xx")  # still written to
    assert folder.ready(nothing) == []
    clock.now += 0.4
    assert folder.ready(nothing) == []
    clock.now += 0.2
    (item,) = folder.ready(nothing)
    assert folder.waiting == 0
    assert item.path == file
    assert item.is_fresh
    clock.now += PATIENCE_SECONDS
    assert not folder.ready(nothing)[0].is_fresh


def test_what_is_known_is_not_given_again_but_another_content_is(tmp_path, clock):
    folder = HotFolder(tmp_path, settle=0, clock=clock)
    (tmp_path / "a.png").write_bytes(b"x")
    (item,) = folder.ready(nothing)
    assert folder.ready({item.key}.__contains__) == []
    assert folder.path_of(item.key) == tmp_path / "a.png"
    (tmp_path / "a.png").write_bytes(b"yy")
    assert folder.path_of(item.key) is None
    assert names(folder.ready({item.key}.__contains__)) == ["a.png"]
    (tmp_path / "a.png").unlink()
    assert folder.path_of(item.key) is None


def test_the_oldest_comes_first_and_other_files_are_left_alone(tmp_path, clock):
    out = tmp_path / "out"
    for place, name, when in (
        (tmp_path, "b.png", 1), (tmp_path / "deep", "a.jpg", 2), (tmp_path, "0.png", 3), (tmp_path, "notes.txt", 0),
        (tmp_path, ".hidden.png", 0), (tmp_path / ".trash", "c.png", 0), (out / "good", "d.png", 0),
    ):  # fmt: skip
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"x")
        os.utime(place / name, (when, when))
    (tmp_path / "empty.png").touch()
    folder = HotFolder(tmp_path, without=[out], settle=0, clock=clock)
    assert names(folder.ready(nothing)) == ["b.png", "deep/a.jpg", "0.png"]
    assert folder.waiting == 1  # the empty one


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(BadConfig, match="there is no folder"):
        HotFolder(tmp_path / "nowhere")


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are bytes on Linux alone")
@pytest.mark.parametrize("name", [b"\xff\xfe.png", b"a\nb.png", b"\n/x.png", "日本 ä.png".encode(), b"a\x1b[0m.png"])
def test_names_that_are_no_text_are_found_again(tmp_path, name):
    os.makedirs(os.path.dirname(os.path.join(os.fsencode(tmp_path), name)), exist_ok=True)
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.png")
    os.rename(tmp_path / "plain.png", os.path.join(os.fsencode(tmp_path), name))
    source = HotFolder(tmp_path, settle=0)
    (item,) = source.ready(lambda key: False)
    assert item.key.encode()  # as the journal writes it
    assert "\x1b" not in item.key
    assert os.fsencode(source.path_of(item.key)) == os.path.join(os.fsencode(tmp_path), name)


def test_an_empty_file_is_not_waited_for_for_ever(tmp_path, clock):
    (tmp_path / "a.png").touch()
    source = HotFolder(tmp_path, clock=clock)
    for seconds, count in ((0, 0), (EMPTY_SECONDS - 1, 0), (1, 1)):
        clock.now += seconds
        assert len(source.ready(lambda key: False)) == count
        assert source.waiting == 1 - count
