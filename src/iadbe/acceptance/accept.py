"""Carries out the parts of an acceptance: challenge set, repeatability, smallest defect."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from iadbe import environment
from iadbe.acceptance.challenge import Challenge, challenge_of
from iadbe.acceptance.drawn_defects import DetectionCurve, detection_curve
from iadbe.acceptance.repeatability import Repeatability, repeatability_of
from iadbe.errors import BadConfig, number_of
from iadbe.files import image_io
from iadbe.files.input_images import InputImage, expand, inputs_of
from iadbe.running import model_folder
from iadbe.running.inference import ImageResult, results_of
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.verdict import GOOD

DRAWN = 20  # spots for each size and contrast
ONTO = 40  # good images that spots are drawn onto, at most
Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Acceptance:
    """What was found of a model."""

    folder: Path
    fitted: FittedDetector = field(repr=False)
    challenge: Challenge
    repeatability: Repeatability | None  # None: no repeats were given
    curve: DetectionCurve | None  # None: no image to draw on, or none was asked for
    limits: dict[str, float]  # that were asked for: escape, overkill
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool | None:
        """Whether the measured shares keep to the limits; None without limits."""
        if not self.limits:
            return None
        return all(getattr(self.challenge, name).value <= limit for name, limit in self.limits.items())


def accept(
    model: str | os.PathLike[str],
    good: Paths,
    bad: Paths,
    *,
    repeats: Paths = (),
    part: str = "",
    drawn: int = DRAWN,
    escape: float | None = None,
    overkill: float | None = None,
    device: str = "auto",
    seed: int = 0,
) -> Acceptance:
    """Measure a calibrated model on images that it knows nothing of.

    Args:
        model: a model's folder or a run's, calibrated
        good: files, folders or patterns of good parts; those that the model has learnt are left out
        bad: of defective parts; the folder that an image lies in is its kind
        repeats: images of parts that were taken several times
        part: which of them show the same part: a rule of :mod:`iadbe.files.groups`
        drawn: spots that are drawn for each size and contrast; 0: none
        escape: largest share of defective parts that may be called good
        overkill: largest share of good parts that may be rejected
        device: auto, cpu, cuda …
        seed: of the drawn spots

    Raises :class:`BadConfig` for a model without a threshold, and for images that do not make a challenge set.
    """
    folder, fitted = calibrated(model, device)
    if repeats and not part:
        raise BadConfig("repeats need part, a rule that says which images show the same part, such as 'part_\\d+'.")
    notes: list[str] = []
    goods = list(scored(fitted, inputs_at(good), device, notes, "good"))
    bads = [(r.path.parent.name, r) for r in scored(fitted, inputs_at(bad), device, notes, "defective")]
    if twice := {r.key for r in goods} & {r.key for _, r in bads}:
        name = next(r.path for r in goods if r.key in twice)
        raise BadConfig(f"{name} is among the good and the defective images. Which is it?")
    challenge = challenge_of(goods, bads)
    again = list(scored(fitted, inputs_at(repeats), device, notes, "repeated")) if repeats else []
    repeatability = repeatability_of(again, part) if again else None
    curve = _curve(fitted, goods, device, drawn, seed, notes) if drawn else None
    limits = {n: v for n, v in (("escape", escape), ("overkill", overkill)) if v is not None}
    return Acceptance(folder, fitted, challenge, repeatability, curve, limits, tuple(notes))


def calibrated(model: str | os.PathLike[str], device: str) -> tuple[Path, FittedDetector]:
    """Load a model that gives verdicts, with its folder. Raises :class:`BadConfig` for one without a threshold."""
    folder = model_folder.resolve_folder(os.fspath(model))
    fitted = model_folder.load(folder, str(environment.device(device)))
    if fitted.calibration.threshold is None:
        raise BadConfig(f"{folder} has no threshold, so it gives no verdicts. Run `iadbe calibrate` first.")
    return folder, fitted


def inputs_at(paths: Paths) -> list[InputImage]:
    """Return the images that files, folders and patterns mean."""
    return inputs_of(expand([os.fspath(p) for p in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]))


def scored(
    fitted: FittedDetector, images: Sequence[InputImage], device: str, notes: list[str], kind: str
) -> Iterator[ImageResult]:
    """Yield results without their maps; what cannot be scored or was learnt is left out, with a note."""
    learnt = lost = 0
    for result in results_of(fitted, images, None, environment.device(device)):
        if result.error:
            notes.append(f"{result.error.rstrip('.')}: it is left out.")
        elif kind == "good" and fitted.was_trained_on(result.key):
            learnt += 1
        elif result.position_found is False:
            lost += 1
        else:
            yield replace(result, view_map=None)
    for count, why in ((learnt, "the detector has learnt them"), (lost, "the position of the part was not found")):
        if count:
            notes.append(f"{number_of(count, f'{kind} image')} of {len(images)} left out: {why}.")


def _curve(
    fitted: FittedDetector, goods: Sequence[ImageResult], device: str, count: int, seed: int, notes: list[str]
) -> DetectionCurve | None:
    if fitted.intensity is not None:
        notes.append("No defects were drawn: these images are deeper than 8 bits.")
        return None
    passed = sorted((r for r in goods if r.verdict == GOOD), key=lambda r: r.path.as_posix())
    chosen = [passed[i] for i in np.linspace(0, len(passed) - 1, min(ONTO, len(passed))).astype(int)] if passed else []
    pixels = [image for image in (r.pixels() for r in chosen) if image is not None]

    def find(images: list[np.ndarray]) -> list[bool]:
        return [r.verdict != GOOD for r in results_of(fitted, inputs_of(images), None, environment.device(device))]

    def counts_at(height: int, width: int) -> np.ndarray | None:
        return None if fitted.region is None else image_io.resized(fitted.region, height, width)

    return detection_curve(pixels, find, count, seed, counts_at)
