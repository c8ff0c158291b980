"""Frames of a video by number, in display order."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from iadbe.errors import BadData, Missing

EXTENSIONS = (  # in lower case
    *(
        ".mp4",
        ".avi",
        ".mov",
        ".mkv",
        ".webm",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".asf",
        ".flv",
        ".mts",
        ".m2ts",
        ".3gp",
    ),
    *(".ogv", ".mxf"),
)
MAX_DECODE_AHEAD = 64  # decode up to so many frames in sequence rather than seek to a key frame


def is_video(path: Path) -> bool:
    """Return by its name whether a file is a video; hidden files are not."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


class Video:
    """One file. Consecutive frames are decoded once each; a seek starts at the key frame before. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._file: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = 0  # number of the next decoded frame
        self._seeked = False

    def __len__(self) -> int:
        return len(self._times)

    @property
    def lost(self) -> int:
        """How many frames the header announces that the file does not hold; a few may be due to how players count."""
        packets, announced = self._index[1:]
        return announced - packets if announced - packets > max(2, announced // 20) else 0

    def frame(self, number: int) -> np.ndarray:
        """Return a frame as (H, W, 3) uint8 RGB. Raises :class:`BadData` naming the file."""
        if not 0 <= number < len(self):
            raise BadData(f"{self.path} has no frame {number}: it has {len(self)} frames, numbered from 0.")
        with self._lock:
            try:
                return self._decoded(number)
            except BadData:
                raise
            except Exception as error:  # a decoder fed with a broken file may raise anything at all
                self._close()
                raise BadData(f"{self.path} cannot be decoded at frame {number}: {error}.") from error

    @property
    def _times(self) -> tuple[int | None, ...]:
        return self._index[0]

    @cached_property
    def _index(self) -> tuple[tuple[int | None, ...], int, int]:
        """The presentation time of each frame in display order (None: unknown), the packets, and the frames announced.

        They are from the packets, without decoding.
        """
        try:
            with _av().open(str(self.path)) as file:
                stream = _stream(file, self.path)
                packets = [packet for packet in file.demux(stream) if packet.size or packet.dts is not None]
                times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
                announced = stream.frames
        except (BadData, Missing):
            raise
        except Exception as error:
            raise _unreadable(self.path, error) from error
        complete = all(t is not None for t in times) and len(set(times)) == len(times)
        return tuple(sorted(times)) if complete else (None,) * len(times), len(packets), announced

    def _decoded(self, number: int) -> np.ndarray:
        time = self._times[number]
        if self._file is None or not self._next <= number <= self._next + MAX_DECODE_AHEAD:
            self._open(time if number else None)
        frame = self._forward(number, time)
        if self._seeked and (frame is None or frame.pts != time):  # the seek landed after the frame
            self._open(None)
            frame = self._forward(number, time)
        if frame is None:
            self._close()
            raise BadData(f"{self.path} ends before frame {number}: it is truncated.")
        return _upright(frame)

    def _forward(self, number: int, time: int | None) -> Any:
        """Decode up to a frame, found by its time or else by counting; None where the video ends before it."""
        for frame in self._frames:
            here, self._next = self._next, self._next + 1
            if here == number if time is None else frame.pts >= time:
                self._next = number + 1
                return frame
        return None

    def _open(self, time: int | None) -> None:
        """Open the file at the last key frame before a time, or at its beginning."""
        self._close()
        self._file = _av().open(str(self.path))
        stream = _stream(self._file, self.path)
        self._seeked = time is not None
        if time is not None:
            self._file.seek(time, stream=stream, backward=True)
        self._frames = self._file.decode(stream)

    def _close(self) -> None:
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        self._file, self._frames, self._next = None, iter(()), 0


def _upright(frame: Any) -> np.ndarray:
    """Return the pixels of a frame, rotated as its metadata says."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90)))


def _stream(file: Any, path: Path) -> Any:
    if not file.streams.video:
        raise BadData(f"{path} has no video stream.")
    return file.streams.video[0]


def _unreadable(path: Path, error: Exception) -> BadData:
    reason = getattr(error, "strerror", None) or error  # without FFmpeg's number and a second name
    return BadData(f"{path} cannot be read as a video: {str(reason).rstrip('.')}. Remove it or copy it again.")


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise Missing("reading videos needs the package av: pip install 'iadbe[video]'") from error
