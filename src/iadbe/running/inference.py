"""Score images with a fitted detector: from files, frames of videos or arrays to one result for each image.

Images are decoded one at a time and kept in the detector's view only. Maps at an image's own size are computed when
they are read, so that memory does not grow with the number and the size of the images.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iadbe.data.aligned import located
from iadbe.data.alignment import Pose, Template, counted, restored, warped
from iadbe.data.images import Images, View, read_view
from iadbe.dataset import Dataset
from iadbe.errors import BadData, BadDetector, IadbeError
from iadbe.evaluation.calibration import Calibration
from iadbe.files import image_io, region_files
from iadbe.files.input_images import InputImage
from iadbe.monitoring import channels
from iadbe.running.model_folder import FittedDetector
from iadbe.running.prediction import predict as score_images
from iadbe.runtime.regions import RegionRule, verdict_by_regions
from iadbe.runtime.scored_image import ScoredImage
from iadbe.runtime.verdict import GOOD, LOOK, REJECT
from iadbe.runtime.zones import zone_numbers
from iadbe.types import IntensityRange, Sample, TrainingImage

BATCH = 8  # images scored at a time
PIXELS = 2**23  # of the views of a batch, at most, so that memory does not grow with their size


@dataclass(frozen=True, slots=True, repr=False)
class ImageResult(ScoredImage):
    """Score and anomaly map of one image."""

    key: str = ""  # digest of the image in the detector's view
    size: tuple[int, int] = (0, 0)  # height and width of the map: those of the image, where they are not limited
    view_map: np.ndarray | None = None  # (h, w) float32, the raw map in the detector's view
    view: View = field(default_factory=View)  # of the detector
    native: tuple[int, int] = (0, 0)  # height and width of the image; not given: those of the map that is asked for
    region: np.ndarray | None = None  # (H, W) bool of the model: which pixels count, of this size or another
    pose: Pose | None = None  # where the part was found; None: the model does not register images
    frame: tuple[int, int] = (0, 0)  # height and width of the reference that the part was found by
    channels: Mapping[str, float] = field(default_factory=dict)  # that are watched for drift, where they were asked for

    @property
    def position_found(self) -> bool | None:
        """Whether the part was found in the image; None: the model does not register images."""
        return None if self.pose is None else self.pose.found

    @property
    def has_map(self) -> bool:
        """Whether there is a map, with a scale on which it can be shown."""
        return self.view_map is not None and self.scale is not None

    @property
    def map(self) -> np.ndarray | None:
        """The raw anomaly map, (H, W) float32 at the image's own size, computed at each call; None without one."""
        return self.map_at(*self.size)

    @property
    def heat(self) -> np.ndarray | None:
        """The map in [0, 1] on the detector's fixed scale, (H, W) at the image's own size, computed at each call."""
        return self.heat_at(*self.size)

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

    def zones_at(self, rule: RegionRule, height: int, width: int) -> np.ndarray | None:
        """Return the numbers of a rule's zones at any size, (height, width) uint8; None: it has none.

        Zones of a model that registers images are drawn on its reference. Raises :class:`BadData` where an image's
        proportions are not those that the zones were drawn for.
        """
        is_moved = self.pose is not None and self.pose.found
        own = zone_numbers(rule.zones, self.frame if is_moved else (height, width))
        if own is None or self.pose is None or not is_moved:
            return own
        numbers = np.zeros((height, width), np.uint8)
        for number in range(len(rule.zones), 0, -1):
            inside = (own == number).astype(np.float32)
            moved = restored(inside, self.pose.resized(self.native, (height, width)), (height, width))
            numbers[moved >= 0.5] = number
        return numbers

    def decided_by(self, calibration: Calibration) -> ImageResult:
        """Return the result with its regions and the verdict by them; as it is without a rule for regions or a map."""
        rule, threshold = calibration.rule, calibration.pixel_threshold
        map_ = None if rule is None or threshold is None else self.map_at(*self.native)
        if rule is None or threshold is None or map_ is None:
            return self
        try:
            zones = self.zones_at(rule, *self.native)
        except BadData as error:
            return replace(self, error=f"{self.path}: {error}")
        verdict, some = verdict_by_regions(map_, rule, threshold, calibration.look_pixel_threshold, zones)
        return replace(self, decided=verdict, regions=tuple(some))

    def heat_at(self, height: int, width: int) -> np.ndarray | None:
        """Return the map in [0, 1] at any size, (height, width) float32."""
        map_ = self.map_at(height, width)
        return None if map_ is None else self.heat_of(map_)

    def __repr__(self) -> str:
        if self.error:
            return f"ImageResult({self.path}: {self.error})"
        verdict = {"": "", GOOD: ", good", LOOK: ", to be looked at", REJECT: ", defective"}[self.verdict]
        verdict = ", position not found" if self.position_found is False else verdict
        return f"ImageResult({self.path}: {self.score:.5g}{verdict})"


def results_of(
    fitted: FittedDetector, images: Sequence[InputImage], threshold: float | None, device: torch.device,
    batch: int = BATCH, map_side: int | None = None, *, measure: bool = False,
) -> Iterator[ImageResult]:  # fmt: skip
    """Score images in batches; an unreadable image gives a result with an error.

    Args:
        fitted: a loaded model
        images: what to score
        threshold: score from which a part is rejected, all others being good; None: the model's own thresholds
        device: of the detector
        batch: images at a time, at most
        map_side: of maps, at most; None: they have their image's size
        measure: the numbers that `iadbe drift` watches, too
    """
    view, calibration = fitted.detector.view, fitted.calibration
    batch = max(1, min(batch, PIXELS // math.prod(view.shape)))
    own = threshold is None
    limit, look = (calibration.threshold, calibration.look_threshold) if own else (threshold, None)
    low, high = calibration.low, calibration.high
    scale = None if low is None or high is None else (low, high)
    for start in range(0, len(images), batch):
        chunk = images[start : start + batch]
        dataset = InputDataset(chunk, view, fitted.intensity, fitted.region, fitted.templates)
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
            pose, frame = dataset.poses.get(name, (None, (0, 0)))
            native = dataset.sizes[name]
            result = ImageResult(
                image.path, score, limit, scaled=calibration.scaled(score), note=dataset.notes[name], scale=scale,
                intensity=fitted.intensity, source=image, key=key, size=_limited(native, map_side), view_map=view_map,
                view=view, native=native, region=fitted.region, pose=pose, frame=frame, look_threshold=look,
                channels=_measured(score, view_map, dataset.pixels[name]) if measure else {},
            )  # fmt: skip
            yield result.decided_by(calibration) if own else result


def _measured(score: float, view_map: np.ndarray | None, pixels: np.ndarray) -> dict[str, float]:
    return {"score": score, **channels.of_map(view_map), **channels.of_pixels(pixels)}


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


class InputDataset(Dataset):
    """Images to score, or to learn from, as a dataset; only their views are kept.

    Unreadable ones are left out, their errors kept. What is kept is in the view already, so a view of its size shows it
    as it is (``shown``).
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
