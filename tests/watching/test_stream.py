"""Frames of videos and cameras."""

import json
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rtsp_server
from dataset_trees import draw_video
from exported_models import golden
from iadbe.errors import BadConfig, Missing
from iadbe.exporting.result import write
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


@contextmanager
def serving(port):
    """Run a real RTSP server."""
    command = [rtsp_server.PYTHON, rtsp_server.__file__, str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def until(condition, seconds=90):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.mark.full
@pytest.mark.slow
def test_a_real_camera_is_watched_and_connected_again(tmp_path):
    """`iadbe watch rtsp://…` against GStreamer's server, which is killed and comes back."""
    pytest.importorskip("av")
    pytest.importorskip("onnxruntime")
    probe = [rtsp_server.PYTHON, "-c", rtsp_server.PROBE]
    if not Path(rtsp_server.PYTHON).exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("GStreamer's RTSP server is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    model, log = write(golden(), tmp_path / "golden.onnx").file, tmp_path / "out" / "verdicts.jsonl"
    address = f"rtsp://operator:secret@127.0.0.1:{port}/line"
    command = [sys.executable, "-m", "iadbe", "watch", address, "--model", str(model), "--out", str(log.parent)]

    def judged():
        return log.read_bytes().count(b"\n") if log.exists() else 0

    absent = subprocess.run(command, capture_output=True, text=True, check=False)
    assert absent.returncode == 1
    assert "cannot be opened" in absent.stderr
    assert "secret" not in absent.stderr
    with ExitStack() as stack:
        with serving(port):
            watcher = stack.enter_context(
                subprocess.Popen([*command, "--move"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            )
            stack.callback(watcher.kill)
            until(lambda: judged() >= 5)
        before = judged()
        time.sleep(3)
        assert watcher.poll() is None  # it waits for the camera
        with serving(port):
            until(lambda: judged() >= before + 5)
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(60) == 0
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert {row["error"] for row in rows} == {None}
    assert len({row["path"] for row in rows}) == len(rows)
    with Image.open(rows[-1]["moved_to"]) as frame:
        assert frame.size == (160, 120)
