import threading

import numpy as np
import pytest

from dataset_trees import draw_video
from iadbe.errors import BadData, Missing
from iadbe.files.video import MAX_DECODE_AHEAD, Video, is_video

av = pytest.importorskip("av")


def level(frame):
    """Return the brightness of a frame, which tells its number."""
    return round(float(frame[8:24, 8:24].mean()))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """100 frames, of which frame i has the grey level 2 i, a key frame each 20."""
    root = tmp_path_factory.mktemp("clips")
    return {
        "mp4": draw_video(root / "a.mp4", "mpeg4", range(0, 200, 2)),
        "avi": draw_video(root / "a.avi", "mpeg4", range(0, 200, 2)),
        "reordered": draw_video(root / "b.mkv", "mpeg2video", range(0, 200, 2), b_frames=2),
    }


@pytest.mark.parametrize("kind", ["mp4", "avi", "reordered"])
def test_frames_come_by_their_number_in_any_order(clips, kind):
    video = Video(clips[kind])
    assert len(video) == 100
    for order in (range(0, 100, 9), [99, 0, 50, 49, 51, 51, 98], [3, 3 + MAX_DECODE_AHEAD, 4]):
        levels = [level(video.frame(i)) for i in order]
        assert np.allclose(levels, [2 * i for i in order], atol=1.01), (kind, list(order), levels)


def test_neighbouring_frames_are_decoded_once(clips, monkeypatch):
    video = Video(clips["mp4"])
    opened = []
    opening = Video._open
    monkeypatch.setattr(Video, "_open", lambda self, time: opened.append(time) or opening(self, time))
    for i in range(30):
        video.frame(i)
    assert len(opened) == 1


def test_a_seek_that_lands_too_late_is_repeated(clips, monkeypatch):
    opening = Video._open
    monkeypatch.setattr(Video, "_open", lambda self, time: opening(self, time and self._times[-1]))
    video = Video(clips["mp4"])
    assert [level(video.frame(i)) // 2 * 2 for i in (70, 2)] == pytest.approx([140, 4], abs=2)


def test_threads_may_share_it(clips):
    video, found = Video(clips["mp4"]), {}

    def read(start):
        for i in range(start, 100, 7):
            found[i] = level(video.frame(i))

    threads = [threading.Thread(target=read, args=(start,)) for start in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert len(found) > 50
    assert all(abs(value - 2 * i) <= 1 for i, value in found.items())


def test_a_frame_is_rgb(tmp_path):
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:, :24] = (250, 0, 0)
    frame = Video(draw_video(tmp_path / "a.mp4", "mpeg4", [pixels])).frame(0)
    assert frame.shape == (32, 48, 3)
    assert frame.dtype == np.uint8
    assert frame[16, 4].argmax() == 0
    assert frame[16, 4, 0] > 200


def test_what_is_no_video_is_an_error(tmp_path, clips):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(
        BadData, match=r"a\.mp4 cannot be read as a video: [A-Z][a-z ]+\. Remove it or copy it again\.$"
    ):
        len(Video(tmp_path / "a.mp4"))
    for number in (-1, 100):
        with pytest.raises(BadData, match=rf"has no frame {number}: it has 100 frames, numbered from 0"):
            Video(clips["mp4"]).frame(number)
    assert [is_video(tmp_path / name) for name in ("a.MP4", "b.avi", "c.png", ".d.mp4")] == [True, True, False, False]


def test_the_missing_package_is_named(clips, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(Missing, match=r"pip install 'iadbe\[video\]'"):
        len(Video(clips["mp4"]))
