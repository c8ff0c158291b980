"""Files are complete when they have not changed for a while."""

import os

import pytest

from iadbe.watching.hot_folder import PATIENCE, HotFolder


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def names(states):
    return [state.path for state in states]


def test_a_file_is_complete_after_the_settling_time(tmp_path, clock):
    folder = HotFolder(tmp_path, 1.0, clock=clock)
    (tmp_path / "a.png").write_bytes(b"1")
    assert (folder.look(), folder.files) == ([], 1)
    clock.now = 0.9
    assert folder.look() == []
    (tmp_path / "a.png").write_bytes(b"12")  # it grows
    clock.now = 1.5
    assert folder.look() == []
    clock.now = 2.6
    (found,) = folder.look()
    assert (found.path, found.size) == ("a.png", 2)
    os.utime(tmp_path / "a.png", ns=(0, 5))  # it was written anew with the same size
    assert folder.look() == []


def test_what_is_complete_for_longest_comes_first(tmp_path, clock):
    folder = HotFolder(tmp_path, 0.0, clock=clock)
    (tmp_path / "b.png").write_bytes(b"1")
    folder.look()
    clock.now = 1
    (tmp_path / "a.png").write_bytes(b"1")
    assert names(folder.look()) == ["b.png", "a.png"]


def test_only_images_below_the_folder_are_looked_at(tmp_path, clock):
    (tmp_path / "out/good").mkdir(parents=True)
    (tmp_path / "deep/er").mkdir(parents=True)
    for name in ("out/good/a.png", "deep/er/b.jpg", "c.png.part", "notes.txt", ".hidden.png"):
        (tmp_path / name).write_bytes(b"1")
    folder = HotFolder(tmp_path, 0.0, [tmp_path / "out"], clock)
    assert names(folder.look()) == ["deep/er/b.jpg"]


def test_links_are_not_followed(tmp_path, clock):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/a.png").write_bytes(b"1")
    source = tmp_path / "source"
    source.mkdir()
    try:
        (source / "link.png").symlink_to(tmp_path / "elsewhere/a.png")
    except OSError:
        pytest.skip("no links here")
    (source / "folder").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert HotFolder(source, 0.0, clock=clock).look() == []


def test_an_unreadable_or_empty_file_is_waited_for_longer(tmp_path, clock):
    folder = HotFolder(tmp_path, 1.0, clock=clock)
    for name, content in (("a.png", b"half"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    folder.look()
    clock.now = 1.0
    (state,) = folder.look()
    assert not folder.is_final(state)
    clock.now = PATIENCE * 1.0
    assert names(folder.look()) == ["a.png", "empty.png"]
    assert folder.is_final(state)
    assert not folder.is_final(state._replace(size=9))
