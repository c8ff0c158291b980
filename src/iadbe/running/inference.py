"""Score images with a fitted detector: from files, frames of videos or arrays to one result for each image.

Images are decoded one at a time and kept in the detector's view only. Maps at an image's own size are computed when
they are read, so that memory does not grow with the number and the size of the images.
"""

from __future__ import annotations

import glob
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from iadbe import system
from iadbe.data.aligned import located
from iadbe.data.alignment import Pose, Template, counted, restored, warped
from iadbe.data.images import Images, View, read_view
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData, BadDetector, IadbeError
from iadbe.files import decoding, image_io, layout, pages, region_files
from iadbe.files.video import Video, is_video
from iadbe.running.model_folder import FittedDetector
from iadbe.running.prediction import predict as score_images
from iadbe.types import IntensityRange, Sample, TrainingImage

BATCH = 8  # images scored at a time
PIXELS = 2**23  # of the views of a batch, at most, so that memory does not grow with their size
# from the range by which a deep image is scaled to (H, W, 3) uint8, and a note where it does not fit; raises BadData
Read = Callable[[IntensityRange | None], tuple[np.ndarray, str]]
MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK")  # of Pillow's images with 8 bits
Input = str | Path | np.ndarray | Image.Image


@dataclass(frozen=True, slots=True)
class InputImage:
    """One image to score: its name, and how its pixels are read."""

    path: Path  # of a file; "line.mp4#0012" for a frame, "array_0" for an array
    read: Read


@dataclass(frozen=True, slots=True, repr=False)
class ImageResult:
    """Score and anomaly map of one image."""

    path: Path
    score: float  # nan where the image could not be scored
    threshold: float | None = None
    error: str = ""  # why this image could not be scored
    scaled: float | None = None  # score in [0, 1], 0.5 at the calibration's threshold
    key: str = ""  # digest of the image in the detector's view
    note: str = ""  # where a deep image does not fit the range that it was scaled by
    size: tuple[int, int] = (0, 0)  # height and width of the map: those of the image, where they are not limited
    view_map: np.ndarray | None = None  # (h, w) float32, the raw map in the detector's view
    scale: tuple[float, float] | None = None  # map values shown as 0 and 1, fixed when the detector was fitted
    intensity: IntensityRange | None = None  # by which a deep image is read, for display too
    source: InputImage | None = field(default=None, compare=False)
    view: View = field(default_factory=View)  # of the detector
    native: tuple[int, int] = (0, 0)  # height and width of the image; not given: those of the map that is asked for
    region: np.ndarray | None = None  # (H, W) bool of the model: which pixels count, of this size or another
    pose: Pose | None = None  # where the part was found; None: the model does not register images
    frame: tuple[int, int] = (0, 0)  # height and width of the reference that the part was found by

    @property
    def defective(self) -> bool | None:
        """Whether the score reaches the threshold; None without a threshold, and where the part was not found."""
        if self.threshold is None or self.error or self.position_found is False:
            return None
        return self.score >= self.threshold

    @property
    def position_found(self) -> bool | None:
        """Whether the part was found in the image; None: the model does not register images."""
        return None if self.pose is None else self.pose.found

    @property
    def map(self) -> np.ndarray | None:
        """The raw anomaly map, (H, W) float32 at the image's own size, computed at each call; None without one."""
        return self.map_at(*self.size)

    @property
    def heat(self) -> np.ndarray | None:
        """The map in [0, 1] on the detector's fixed scale, (H, W) at the image's own size, computed at each call."""
        return self.heat_at(*self.size)

    def pixels(self) -> np.ndarray | None:
        """Read the image anew, (H, W, 3) uint8; None where it is not known where it came from."""
        return None if self.source is None else self.source.read(self.intensity)[0]

    def map_at(self, height: int, width: int) -> np.ndarray | None:
        """Return the raw map at any size, (height, width) float32."""
        if self.view_map is None:
            return None
        if self.pose is not None and self.pose.found:
            own = self.view.to_native(self.view_map, self.frame)
            return restored(own, self.pose.resized(self.native, (height, width)), (height, width), float(own.min()))
        return self.view.to_native(self.view_map, self.native if all(self.native) else (height, width), (height, width))

    def region_at(self, height: int, width: int) -> np.ndarray | None:
        """Return which pixels count at any size, (height, width) bool; None: all of them."""
        if self.region is None:
            return None
        if self.pose is not None and self.pose.found:
            own = image_io.resized(self.region, *self.frame).astype(np.float32)
            return restored(own, self.pose.resized(self.native, (height, width)), (height, width)) >= 0.5
        return image_io.resized(self.region, height, width)

    def heat_at(self, height: int, width: int) -> np.ndarray | None:
        """Return the map in [0, 1] at any size, (height, width) float32."""
        map_ = self.map_at(height, width)
        return None if map_ is None else self.heat_of(map_)

    def heat_of(self, map_: np.ndarray) -> np.ndarray | None:
        """Return raw map values, or some rows of them, in [0, 1] on the detector's fixed scale."""
        if self.scale is None:
            return None
        low, high = self.scale
        return ((map_ - low) / max(high - low, 1e-12)).clip(0, 1)

    def __repr__(self) -> str:
        if self.error:
            return f"ImageResult({self.path}: {self.error})"
        verdict = {None: "", True: ", defective", False: ", good"}[self.defective]
        verdict = ", position not found" if self.position_found is False else verdict
        return f"ImageResult({self.path}: {self.score:.5g}{verdict})"


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


def results_of(
    fitted: FittedDetector, images: Sequence[InputImage], limit: float | None, device: torch.device,
    batch: int = BATCH, map_side: int | None = None,
) -> Iterator[ImageResult]:  # fmt: skip
    """Score images in batches; an unreadable image gives a result with an error. ``map_side`` limits maps' sides."""
    view, calibration = fitted.detector.view, fitted.calibration
    batch = max(1, min(batch, PIXELS // math.prod(view.shape)))
    low, high = calibration.low, calibration.high
    scale = None if low is None or high is None else (low, high)
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        dataset = _Inputs(chunk, view, fitted.intensity, fitted.region, fitted.templates)
        samples = dataset.samples()
        scored = Images(dataset, [TrainingImage(s) for s in samples], dataset.shown, device)
        output = _scored(fitted, scored) if samples else None
        places = {s.id: i for i, s in enumerate(samples)}
        for image in chunk:
            name = str(image.path)
            if output is None or name in dataset.errors:
                yield ImageResult(image.path, float("nan"), error=dataset.errors[name], source=image)
                continue
            i = places[name]
            score = float(output.score[i])
            view_map = None if output.map is None else _counted(output.map[i], dataset.region(samples[i]))
            key = read_view(dataset, samples[i], dataset.shown)[1]
            scaled, note, native = calibration.scaled(score), dataset.notes[name], dataset.sizes[name]
            yield ImageResult(
                image.path, score, limit, "", scaled, key, note, _limited(native, map_side), view_map, scale,
                fitted.intensity, image, view, native, fitted.region, *dataset.poses.get(name, (None,)),
            )  # fmt: skip


def _limited(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Return a size whose longer side is at most ``side``, with the same aspect ratio."""
    if side is None or max(size) <= side:
        return size
    share = side / max(size)
    return max(1, round(size[0] * share)), max(1, round(size[1] * share))


def _scored(fitted: FittedDetector, images: Images) -> Any:
    try:
        return score_images(fitted.detector, images)
    except IadbeError:
        raise
    except (RuntimeError, ValueError, LookupError, TypeError) as error:
        why = " ".join(str(error).split())[:200]
        text = f"{fitted.name} cannot score images ({type(error).__name__}: {why}). Its model folder may be damaged."
        raise BadDetector(text) from error


class _Inputs(Dataset):
    """Images to score as a dataset; only their views are kept. Unreadable ones are left out, their errors kept.

    What is kept is in the view already, so a view of its size shows it as it is (``shown``).
    """

    filled = True

    def __init__(
        self,
        images: Sequence[InputImage],
        view: View,
        intensity: IntensityRange | None,
        region: np.ndarray | None = None,
        templates: Mapping[str, Template] | None = None,
    ) -> None:
        self.root = Path()
        self.regions_in_view: dict[str, np.ndarray] = {}
        self.view = view
        self.shown = View(view.shape[0], resize_width=view.shape[1])
        self.notes: dict[str, str] = {}
        self.pixels: dict[str, np.ndarray] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.errors: dict[str, str] = {}
        self.poses: dict[str, tuple[Pose, tuple[int, int]]] = {}  # and the size of the reference
        for image in images:
            name = str(image.path)
            try:
                pixels, self.notes[name] = image.read(intensity)
                self.sizes[name] = (pixels.shape[0], pixels.shape[1])
                pixels, counts = self._registered(name, pixels, templates)
                if region is not None:
                    own = region_files.fitted(region, pixels.shape[:2], "what the model was fitted to")
                    pixels = region_files.filled(pixels, own)
                    counts = own if counts is None else own & counts
            except BadData as error:
                self.errors[name] = str(error)
                continue
            if counts is not None and not counts.all():
                self.regions_in_view[name] = view(counts)
            elif (shown := view.content(*pixels.shape[:2])) is not None:
                self.regions_in_view[name] = shown
            self.pixels[name] = np.array(view(pixels))  # a copy, because a crop shares memory with the whole image

    def _registered(
        self, name: str, pixels: np.ndarray, templates: Mapping[str, Template] | None
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return an image in the frame of the reference, and which pixels it shows there; None: all of them."""
        if not templates:
            return pixels, None
        pose, template = located(pixels, templates.values())
        self.poses[name] = (pose, template.size)
        if not pose.found:
            return pixels, None
        return warped(pixels, pose, template.size), counted(pose, template.size, self.sizes[name])

    @property
    def categories(self) -> tuple[str, ...]:
        return ("images",)

    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(name, "images", "test", "good", name) for name in self.pixels)

    def image(self, sample: Sample) -> np.ndarray:
        return self.pixels[sample.id]

    def region(self, sample: Sample) -> np.ndarray | None:
        return self.regions_in_view.get(sample.id)


def _counted(map_: np.ndarray, region: np.ndarray | None) -> np.ndarray:
    """Return a copy of a map that has its lowest value that counts where pixels do not."""
    return map_.copy() if region is None else np.where(region, map_, map_[region].min())


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
