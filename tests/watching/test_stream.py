"""Frames of videos and cameras."""

import time

import numpy as np
import pytest

from dataset_trees import draw_video
from iadbe.errors import BadConfig, Missing
from iadbe.watching import stream
from iadbe.watching.stream import Camera, VideoFrames, is_camera


def nothing(key):
    return False


def frames(video):
    while not video.is_over:
        yield from video.ready(nothing)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("rtsp://camera/1", True), ("rtsps://camera/1", True), ("/dev/video0", True), ("line.mp4", False), ("in", False)],
)
def test_addresses_of_cameras_are_recognised(text, expected):
    assert is_camera(text) == expected


def test_every_frame_of_a_video_is_given_and_it_goes_on_where_it_was(tmp_path):
    pytest.importorskip("av")
    draw_video(tmp_path / "line.mp4", "mpeg4", [0, 100, 200])
    found = list(frames(VideoFrames(tmp_path / "line.mp4")))
    assert [item.name for item in found] == ["line.mp4_0000.png", "line.mp4_0001.png", "line.mp4_0002.png"]
    levels = [item.images[0].read(None)[0].mean() for item in found]
    assert levels == sorted(levels)
    known = {item.key for item in found[:2]}
    (item,) = VideoFrames(tmp_path / "line.mp4").ready(known.__contains__)
    assert item.key == found[2].key


class Frame:
    def __init__(self, level):
        self.level = level

    def to_ndarray(self, format):
        assert format == "rgb24"
        return np.full((4, 4, 3), self.level, np.uint8)


class Stream:
    """A camera that gives frames and then fails."""

    opened = 0

    def __init__(self):
        Stream.opened += 1

    def decode(self, video):
        for level in range(3):
            yield Frame(10 * Stream.opened + level)
        raise OSError("the cable is out")

    def close(self):
        """Do nothing."""


def test_of_a_camera_the_newest_frame_counts_and_a_lost_one_is_connected_again(monkeypatch):
    pytest.importorskip("av")
    Stream.opened = 0
    monkeypatch.setattr(stream, "RETRY_SECONDS", 0.3)
    monkeypatch.setattr(stream, "_open", lambda address: Stream())
    camera = Camera("rtsp://camera/1")
    try:
        deadline = time.monotonic() + 10
        while not camera.problem and time.monotonic() < deadline:
            time.sleep(0.01)
        assert camera.problem == "the cable is out"
        (item,) = camera.ready(nothing)
        assert item.images[0].read(None)[0].mean() == 12
        assert camera.dropped == 2
        assert item.path is None
        while not (again := camera.ready(nothing)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert again[0].images[0].read(None)[0].mean() >= 20
        assert again[0].key != item.key
    finally:
        camera.close()


def test_a_camera_that_is_not_there(monkeypatch):
    pytest.importorskip("av")
    with pytest.raises(BadConfig, match="/dev/video99 cannot be opened"):
        Camera("/dev/video99")
    monkeypatch.setattr(stream, "_open", lambda address: (_ for _ in ()).throw(OSError("refused")))
    with pytest.raises(BadConfig, match=r"the camera rtsp://camera/1 cannot be opened: refused") as error:
        Camera("rtsp://user:secret@camera/1")
    assert "secret" not in str(error.value)


def test_without_pyav_the_way_is_named(monkeypatch):
    monkeypatch.setattr(stream, "find_spec", lambda name: None)
    with pytest.raises(Missing, match="iadbe\\[video\\]"):
        Camera("rtsp://camera/1")
