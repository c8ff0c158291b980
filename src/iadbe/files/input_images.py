"""The images that a user names to be scored: files, folders, patterns, videos, pages, arrays."""

from __future__ import annotations

import glob
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from iadbe import system
from iadbe.errors import BadConfig, BadData
from iadbe.files import decoding, image_io, layout, pages
from iadbe.files.video import Video, is_video
from iadbe.types import IntensityRange

# from the range by which a deep image is scaled to (H, W, 3) uint8, and a note where it does not fit; raises BadData
Read = Callable[[IntensityRange | None], tuple[np.ndarray, str]]
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")  # of Pillow's images with 8 bits
Input = str | Path | np.ndarray | Image.Image


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to score: its name, and how its pixels are read."""

    path: Path  # of a file; "line.mp4#0012" for a frame, "array_0" for an array
    read: Read


def inputs_of(given: Any) -> list[InputImage]:
    """Return the images that files, folders, globs, videos, arrays and Pillow's images mean, in a stable order."""
    if isinstance(given, (str, Path, Image.Image)) or (isinstance(given, np.ndarray) and given.ndim <= 3):
        given = [given]
    if not isinstance(given, Iterable):
        raise BadConfig(f"images are paths, arrays or images of Pillow, not {type(given).__name__}.")
    found: list[InputImage] = []
    for number, one in enumerate(given):
        if not isinstance(one, (str, Path, np.ndarray, Image.Image)):
            raise BadConfig(
                f"image {number} is of the type {type(one).__name__}. Give a path, an array (H, W, 3) of uint8, or an "
                "image of Pillow."
            )
        if isinstance(one, (np.ndarray, Image.Image)):
            found.append(InputImage(Path(f"array_{number}"), partial(_read_array, one, f"image {number}")))
        else:
            for path in expand([one]):
                found += frames_of(path) if is_video(path) else pages_of(path)
    once: dict[Path, InputImage] = {}
    for image in found:
        once.setdefault(image.path, image)
    return list(once.values())


def pages_of(path: Path) -> list[InputImage]:
    """Return the image of a file, or the pages of a TIFF that has several, numbered from 0."""
    try:
        count = decoding.count_images(path)
    except BadData:
        count = 1  # reading it raises the error again, for this image alone
    names = [path] if count == 1 else [path.with_name(pages.name(path.name, number)) for number in range(count)]
    return [InputImage(name, partial(image_io.read_with_note, name)) for name in names]


def frames_of(path: Path) -> list[InputImage]:
    """Return the frames of a video, numbered from 0."""
    video = Video(path)
    try:
        count, lost = len(video), video.lost
    except BadData:
        return [InputImage(path, partial(_read_frame, video, 0))]  # raises the error again, for this video alone
    digits = max(4, len(str(count + lost)))
    names = (path.with_name(f"{path.name}#{n:0{digits}d}") for n in range(count + bool(lost)))
    return [InputImage(name, partial(_read_frame, video, n)) for n, name in enumerate(names)]


def expand(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the images and videos that files, folders and globs mean, in a stable order, each once."""
    found: dict[Path, None] = {}
    for text in inputs:
        path = system.user_path(text)
        if path.is_dir():
            matches = [p for p in sorted(path.rglob("*")) if p.is_file() and is_input(p)]
        elif path.is_file() or pages.file_of(path).is_file():
            matches = [path]
        else:
            matches = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if is_input(p)]
        if not matches:
            if not path.is_dir():
                raise BadConfig(f"{text} is no file, no folder and no pattern that matches an image or a video.")
            raise BadConfig(f"{text} has no images or videos in it.{layout.endings_text(path)}")
        found.update(dict.fromkeys(matches))
    return list(found)


def is_input(path: Path) -> bool:
    """Return by its name whether a file can be scored: an image or a video."""
    return image_io.is_image(path) or is_video(path)


def _read_frame(video: Video, number: int, intensity: IntensityRange | None) -> tuple[np.ndarray, str]:
    if video.lost and number == len(video):
        raise BadData(f"{video.path} ends after {number} of {number + video.lost} frames: it is truncated.")
    return video.frame(number), ""


def _read_array(given: np.ndarray | Image.Image, name: str, intensity: IntensityRange | None) -> tuple[np.ndarray, str]:
    return _pixels_of(given, name), ""


def _pixels_of(given: np.ndarray | Image.Image, name: str) -> np.ndarray:
    """Return an array or one of Pillow's images as (H, W, 3) uint8."""
    if isinstance(given, Image.Image):
        if given.mode not in MODES:
            raise BadData(f"{name} has the mode {given.mode}. Convert it to 8 bits first: image.convert('RGB').")
        return np.array(given.convert("RGB"))
    if given.dtype == np.uint8 and given.size:
        if given.ndim == 2:
            return np.repeat(given[:, :, None], 3, axis=2)
        if given.ndim == 3 and given.shape[2] in (1, 3):
            return np.repeat(given, 3, axis=2) if given.shape[2] == 1 else given
    raise BadData(f"{name} must be uint8 of shape (H, W) or (H, W, 3), not {given.dtype} of shape {given.shape}.")
