"""Reads the frames of a video by their number, in the order in which they are shown."""

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

EXTENSIONS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")  # in lower case
AHEAD = 64  # frames to decode on the way rather than to jump to the last key frame


def is_video(path: Path) -> bool:
    """Say by its name whether a file is a video; hidden files are not."""
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


class Video:
    """One file. Frames in a row are decoded once each; a jump begins at the key frame before. Threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = Lock()
        self._file: Any = None
        self._frames: Iterator[Any] = iter(())
        self._next = 0  # number of the frame that comes next, once one was found
        self._jumped = False

    def __len__(self) -> int:
        return len(self._times)

    def frame(self, number: int) -> np.ndarray:
        """Return a frame as (H, W, 3) uint8 RGB. Raises :class:`BadData` naming the file."""
        if not 0 <= number < len(self):
            raise BadData(f"{self.path} has no frame {number}: it has {len(self)}, from 0.")
        with self._lock:
            try:
                return self._decoded(number)
            except BadData:
                raise
            except Exception as error:  # a decoder fed with a broken file may raise anything at all
                self._forget()
                raise BadData(f"{self.path} cannot be decoded at frame {number}: {error}.") from error

    @cached_property
    def _times(self) -> tuple[int | None, ...]:
        """The time of each frame, in the order of showing, from the packets: nothing is decoded. None: not told."""
        try:
            with _av().open(str(self.path)) as file:
                packets = file.demux(_stream(file, self.path))
                times = [packet.pts for packet in packets if packet.size and not packet.is_discard]
        except (BadData, Missing):
            raise
        except Exception as error:
            raise BadData(f"{self.path} cannot be read as a video: {error}. Remove it or copy it again.") from error
        told = all(t is not None for t in times) and len(set(times)) == len(times)
        return tuple(sorted(times)) if told else (None,) * len(times)

    def _decoded(self, number: int) -> np.ndarray:
        time = self._times[number]
        if self._file is None or not self._next <= number <= self._next + AHEAD:
            self._open(time if number else None)
        frame = self._forward(number, time)
        if self._jumped and (frame is None or frame.pts != time):  # the jump did not land before it
            self._open(None)
            frame = self._forward(number, time)
        if frame is None:
            self._forget()
            raise BadData(f"{self.path} ends before frame {number}: it is not whole.")
        return _upright(frame)

    def _forward(self, number: int, time: int | None) -> Any:
        """Decode up to a frame, known by its time or else counted; None where the video ends before it."""
        for frame in self._frames:
            here, self._next = self._next, self._next + 1
            if here == number if time is None else frame.pts >= time:
                self._next = number + 1
                return frame
        return None

    def _open(self, time: int | None) -> None:
        """Open the file anew at the last key frame before a time, or at its beginning."""
        self._forget()
        self._file = _av().open(str(self.path))
        stream = _stream(self._file, self.path)
        self._jumped = time is not None
        if time is not None:
            self._file.seek(time, stream=stream, backward=True)
        self._frames = self._file.decode(stream)

    def _forget(self) -> None:
        if self._file is not None:
            with suppress(Exception):
                self._file.close()
        self._file, self._frames, self._next = None, iter(()), 0


def _upright(frame: Any) -> np.ndarray:
    """Return the pixels of a frame, turned as the camera was held."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    return np.ascontiguousarray(np.rot90(pixels, round(getattr(frame, "rotation", 0) / 90)))


def _stream(file: Any, path: Path) -> Any:
    if not file.streams.video:
        raise BadData(f"{path} holds no images, only sound or text.")
    return file.streams.video[0]


def _av() -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise Missing("reading videos needs the package av: pip install 'iadbe[video]'") from error
