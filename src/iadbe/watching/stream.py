"""Frames of a video file, of a network camera (RTSP) or of a camera of this machine (V4L2), by PyAV.

Of a file every frame is judged, and after a kill it goes on behind the last one. Of a camera the newest frame is: where
frames come faster than they are judged, older ones are dropped and counted. A camera that is lost is connected again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from iadbe.errors import BadConfig, Missing
from iadbe.files.input_images import InputImage, frames_of
from iadbe.types import IntensityRange
from iadbe.watching.source import Item

ADDRESSES = ("rtsp://", "rtsps://")
DEVICES = "/dev/video"
RETRY_SECONDS = 2.0
OPEN_SECONDS = (10.0, 10.0)  # for which a camera may keep silent: when it is opened, and between frames


def is_camera(text: str) -> bool:
    """Return whether a source is the address or the device of a camera."""
    return text.startswith((*ADDRESSES, DEVICES))


class VideoFrames:
    """The frames of a video file."""

    waiting = 0
    is_over = False

    def __init__(self, file: Path) -> None:
        stat = file.stat()
        self._key = f"{file.name}\n{stat.st_size}\n{stat.st_mtime_ns}"
        self._left: Iterator[InputImage] = iter(frames_of(file))

    def ready(self, knows: Callable[[str], bool]) -> list[Item]:
        """Return the next frame."""
        for image in self._left:
            key = f"{self._key}\n{image.path.name}"
            if not knows(key):
                return [Item(f"{image.path.name.replace('#', '_')}.png", key, [image])]
        self.is_over = True
        return []

    def path_of(self, key: str) -> Path | None:
        """Return None: frames are no files."""
        return None


class Camera:
    """The newest frame of a camera, which a thread reads."""

    is_over = False

    def __init__(self, address: str, name: str = "camera") -> None:
        """Connect. Raises :class:`Missing` without PyAV, :class:`BadConfig` where the camera cannot be opened."""
        if find_spec("av") is None:
            raise Missing(
                "cameras are read by PyAV, which is not installed. Install it with: pip install 'iadbe[video]'"
            )
        self._address = address
        self._name = name
        self._session = time.strftime("%Y%m%d-%H%M%S")
        self._lock = threading.Lock()
        self._newest: tuple[int, np.ndarray] | None = None
        self._number = 0
        self._is_closed = False
        self.waiting = 0
        self.dropped = 0  # frames that were not judged
        self.problem = ""  # why there are no frames at the moment
        try:
            stream = _open(address)
        except Exception as error:  # PyAV raises errors of many kinds
            raise BadConfig(f"the camera {_hidden(address)} cannot be opened: {_reason(error, address)}.") from error
        threading.Thread(target=self._read, args=(stream,), name="camera", daemon=True).start()

    def ready(self, knows: Callable[[str], bool]) -> list[Item]:
        """Return the newest frame, if there is one since the last call."""
        with self._lock:
            found, self._newest = self._newest, None
        if found is None:
            return []
        number, pixels = found
        name = f"{self._name}-{self._session}-{number:06d}.png"
        return [Item(name, name, [InputImage(Path(name), partial(_given, pixels))])]

    def path_of(self, key: str) -> Path | None:
        """Return None: frames are no files."""
        return None

    def close(self) -> None:
        """End the connection."""
        self._is_closed = True

    def _read(self, stream: Any) -> None:
        while not self._is_closed:
            try:
                for frame in stream.decode(video=0):
                    self._keep(frame.to_ndarray(format="rgb24"))
                    if self._is_closed:
                        break
                self.problem = "the camera has ended its stream"
            except Exception as error:  # of the network, of the driver, of a damaged frame
                self.problem = _reason(error, self._address)
            stream.close()
            while not self._is_closed:
                time.sleep(RETRY_SECONDS)
                try:
                    stream = _open(self._address)
                    break
                except Exception as error:
                    self.problem = _reason(error, self._address)

    def _keep(self, pixels: np.ndarray) -> None:
        with self._lock:
            self.dropped += self._newest is not None
            self._number += 1
            self._newest = (self._number, pixels)
            self.problem = ""


def _open(address: str) -> Any:
    import av

    if address.startswith(DEVICES):
        return av.open(address, format="v4l2", timeout=OPEN_SECONDS)
    return av.open(address, options={"rtsp_transport": "tcp"}, timeout=OPEN_SECONDS)


def _given(pixels: np.ndarray, intensity: IntensityRange | None) -> tuple[np.ndarray, str]:
    return pixels, ""


def _reason(error: Exception, address: str) -> str:
    """Return what an error says, in which PyAV repeats the address, without a password."""
    return str(error).replace(address, _hidden(address))


def _hidden(address: str) -> str:
    """Return an address without the password that it may hold."""
    scheme, mark, rest = address.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}" if mark else address
