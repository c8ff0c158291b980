"""The main jobs from Python, the same as on the command line.

import iadbe

for result in iadbe.train("patchcore", "toy", categories=["metal"], coreset=0.1):
    print(result.folder, result.rows)
for image in iadbe.predict(result.folder, ["images/*.png"]):
    print(image.path, image.score, image.defective)
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iadbe import environment, registry
from iadbe.data import resolve
from iadbe.data.images import Images, read_view
from iadbe.dataset import Dataset, Index
from iadbe.errors import BadConfig, BadData
from iadbe.evaluation.calibration import Calibration, ImageScores, ThresholdRule
from iadbe.evaluation.measure import measure
from iadbe.files import image_io
from iadbe.metric import DEFAULT
from iadbe.networks import engines
from iadbe.running import model_folder, plan, pool
from iadbe.running.model_folder import FittedDetector
from iadbe.running.run import execute, images_for
from iadbe.running.run import predict as score_images
from iadbe.running.store import Store
from iadbe.types import IntensityRange, Options, Row, RunResult, Sample, TrainingImage

STORE = "runs"  # the folder for results where none is named
BATCH = 8  # images scored at a time
HIGHEST = 3  # of the good images that are named after a calibration
NOT_KNOWN = "make sure that none of it is here, for it scores too low"


@dataclass(frozen=True, slots=True)
class TrainedRun:
    """A run of `train`: its folder and its result."""

    folder: Path
    result: RunResult

    @property
    def rows(self) -> tuple[Row, ...]:
        """The run's metrics."""
        return self.result.rows


@dataclass(frozen=True, slots=True)
class ImageResult:
    """Score and anomaly map of one image."""

    path: Path
    score: float
    threshold: float | None = None
    map: np.ndarray | None = None  # (H, W) float32, raw, at the image's own size
    heat: np.ndarray | None = None  # (H, W) in [0, 1], on the scale fixed when the detector was fitted
    error: str = ""  # why this image could not be scored
    scaled: float | None = None  # score in [0, 1], 0.5 at the calibration's threshold
    key: str = ""  # digest of the image in the detector's view
    intensity: IntensityRange | None = None  # by which a deep image is read, for display too
    note: str = ""  # where a deep image does not fit that range

    @property
    def defective(self) -> bool | None:
        """Whether the score reaches the threshold; None without a threshold."""
        return None if self.threshold is None or self.error else self.score >= self.threshold


@dataclass(frozen=True, slots=True)
class CalibrationResult:
    """A calibration of `calibrate`, and the model folder that holds it."""

    folder: Path
    calibration: Calibration
    notes: tuple[str, ...]  # what was left out and why
    highest: tuple[ImageResult, ...]  # good images with the highest scores, without maps; check their labels


def train(
    detector: str,
    data: str,
    *,
    categories: Sequence[str] = (),
    data_params: Mapping[str, Any] | None = None,
    setting: str = "vanilla",
    setting_params: Mapping[str, Any] | None = None,
    seed: int = 0,
    protocol: str = "uniform",
    store: str | Path = STORE,
    options: Options | None = None,
    **params: Any,
) -> list[TrainedRun]:
    """Fit a detector on each category, test it and keep the model; ``params`` are the detector's own."""
    grid = {
        "detectors": [{"name": detector, "params": params}],
        "data": [{"name": data, "categories": list(categories), "params": data_params or {}}],
        "settings": [{"name": setting, "params": setting_params or {}}],
        "seeds": [seed],
        "protocol": protocol,
    }
    registry.trust_written(plan.written_names(grid))
    planned = plan.expand(grid)
    if not planned.runs:
        raise BadConfig("nothing can be trained: " + " ".join(map(str, planned.skipped)))
    here = Store(store)
    wanted = replace(options or Options(), keep_model=True)
    return [TrainedRun(here.path(spec), execute(spec, here, wanted)) for spec in planned.runs]


def benchmark(
    grid: Mapping[str, Any] | str | Path,
    *,
    store: str | Path = STORE,
    options: Options | None = None,
    trust: Sequence[str] = (),
    **how: Any,
) -> pool.GridSummary:
    """Run what is missing of a grid (a mapping or a YAML file); ``how`` goes to :func:`iadbe.running.pool.run_all`.

    A file may name classes outside the registries only if ``trust`` names them too.
    """
    registry.trust(*trust)
    if isinstance(grid, Mapping):
        registry.trust_written(plan.written_names(grid))
    planned = plan.expand(grid if isinstance(grid, Mapping) else plan.read(Path(grid)))
    return pool.run_all(planned.runs, Store(store), options or Options(), **how)


def load(
    model: str | Path, device: str = "auto", engine: str = "torch", *, trust: Sequence[str] = ()
) -> FittedDetector:
    """Load a fitted detector from its model folder or its run's folder; ``engine`` computes its backbone.

    A model of a class outside the registries is loaded only if ``trust`` names that class: loading it runs its code.
    """
    registry.trust(*trust)
    with engines.using(engine):
        return model_folder.load(model, str(environment.device(device)))


def test(
    model: str | Path | FittedDetector,
    data: str,
    *,
    categories: Sequence[str] = (),  # noqa: PT028  (this is no test of ours)
    metrics: Sequence[str] = DEFAULT,  # noqa: PT028
    device: str = "auto",  # noqa: PT028
    **data_params: Any,
) -> dict[str, dict[str, float]]:
    """Test a fitted detector on the test split of each category: values by metric, by category."""
    fitted = model if isinstance(model, FittedDetector) else load(model, device)
    registry.trust_written([data, *metrics])
    found = resolve.find(data, **data_params)
    dataset = resolve.make(found.name, found.params)
    dataset.intensity = fitted.intensity or dataset.intensity
    index = Index(dataset.samples())
    rows = {}
    for category in categories or dataset.categories:
        where = environment.device(device)
        images = images_for(fitted.detector, dataset, [TrainingImage(s) for s in index.test(category)], where)
        if not len(images):
            raise BadData(f"{category} has no test images.")
        rows[category], _ = measure(score_images(fitted.detector, images), images, metrics)
    return rows


def calibrate(
    model: str | Path,
    good: str | Path | Iterable[str | Path],
    bad: str | Path | Iterable[str | Path] = (),
    *,
    overkill: float | None = None,
    escape: float | None = None,
    cost: float | None = None,
    defects: float | None = None,
    device: str = "auto",
) -> CalibrationResult:
    """Choose thresholds for a fitted detector on images that it was not trained on, and store them in its folder.

    :class:`iadbe.evaluation.calibration.ThresholdRule` explains ``overkill``, ``escape``, ``cost`` and ``defects``.
    """
    rule, folder = ThresholdRule(overkill, escape, cost, defects), model_folder.resolve_folder(model)
    good, bad = ([given] if isinstance(given, (str, Path)) else given for given in (good, bad))
    good_paths, bad_paths = expand(good), expand(bad)
    rule.check(len(good_paths), len(bad_paths))
    fitted = load(folder, device)
    _check_images_will_do(fitted)
    notes = [] if fitted.learnt is not None else [f"{folder} does not say what it learnt: {NOT_KNOWN}."]
    taken: dict[str, Path] = {}
    goods, results, learnt = _score_set(fitted, good_paths, device, taken, "good", notes)
    bads, _, _ = _score_set(fitted, bad_paths, device, taken, "defective", notes)
    rule.check(len(goods.score), len(bads.score), learnt)
    found = rule.calibrate(goods, bads)
    model_folder.save_calibration(folder, found)
    highest = sorted(results, key=lambda f: -f.score)[:HIGHEST]
    return CalibrationResult(folder, found, tuple(notes), tuple(replace(f, threshold=found.threshold) for f in highest))


def _score_set(
    fitted: FittedDetector, paths: Sequence[Path], device: str, taken: dict[str, Path], kind: str, notes: list[str]
) -> tuple[ImageScores, list[ImageResult], int]:
    """Score one set of images; return the scores, the images and how many were training images.

    Training images, duplicates and unreadable files are left out, with a note. ``taken`` maps the digests of all
    images so far to their paths, and is updated.
    """
    kept: list[ImageResult] = []
    tops, middles = [], []
    own: set[str] = set()
    learnt = twice = 0
    for found in _results(fitted, paths, None, environment.device(device), BATCH):
        if found.error:
            notes.append(f"{found.error.rstrip('.')}: it is left out.")
        elif fitted.was_trained_on(found.key):
            learnt += 1
        elif found.key in own:
            twice += 1
        elif found.key in taken:
            raise BadConfig(f"{found.path} is the same image as {taken[found.key]}: is it good or defective?")
        else:
            own.add(found.key)
            taken[found.key] = found.path
            kept.append(replace(found, map=None, heat=None))
            if found.map is not None:
                tops.append(found.map.max())
                middles.append(np.median(found.map[::4, ::4]))
    for count, why in ((learnt, "the detector has learnt them"), (twice, "they are there twice")):
        if count:
            notes.append(f"{count} of {len(paths)} {kind} images are left out: {why}.")
    score = np.array([f.score for f in kept], np.float32)
    maps = (np.array(tops, np.float32), np.array(middles, np.float32)) if tops else (None, None)
    return ImageScores(score, *maps), kept, learnt


def predict(
    model: str | Path | FittedDetector, inputs: str | Path | Iterable[str | Path], *, threshold: float | None = None,
    device: str = "auto", engine: str = "torch", batch: int = BATCH, map_side: int | None = None,
) -> Iterator[ImageResult]:  # fmt: skip
    """Score files, folders (searched through) or globs; an unreadable image gives a result with an error.

    Arguments are checked at once; images are scored while the results are iterated. A model that is already loaded
    keeps its engine. ``map_side`` limits the longer side of the maps, in pixels; by default they have the image's size.
    """
    fitted = model if isinstance(model, FittedDetector) else load(model, device, engine)
    _check_images_will_do(fitted)
    paths = expand([inputs] if isinstance(inputs, (str, Path)) else inputs)
    limit = fitted.calibration.threshold if threshold is None else threshold
    return _results(fitted, paths, limit, environment.device(device), batch, map_side)


def _results(
    fitted: FittedDetector, paths: Sequence[Path], limit: float | None, device: torch.device, batch: int,
    map_side: int | None = None,
) -> Iterator[ImageResult]:  # fmt: skip
    for start in range(0, len(paths), batch):
        chunk = paths[start : start + batch]
        dataset = _Files(chunk, fitted.intensity)
        readable = dataset.samples()
        images = Images(dataset, [TrainingImage(s) for s in readable], fitted.detector.view, device)
        evidence = score_images(fitted.detector, images) if len(images) else None
        places = {s.id: i for i, s in enumerate(readable)}
        for path in chunk:
            if evidence is None or path in dataset.errors:
                yield ImageResult(path, float("nan"), error=dataset.errors[path])
                continue
            i = places[str(path)]
            size = _limited(dataset.sizes[path], map_side)
            map_ = None if evidence.map is None else _at_size(evidence.map[i], fitted, size)
            score = float(evidence.score[i])
            key = read_view(dataset, readable[i], fitted.detector.view)[1]
            scaled = fitted.calibration.scaled(score)
            yield ImageResult(
                path,
                score,
                limit,
                map_,
                _heat(map_, fitted),
                "",
                scaled,
                key,
                fitted.intensity,
                dataset.notes.get(path, ""),
            )


def _check_images_will_do(fitted: FittedDetector) -> None:
    if "depth" in fitted.detector.needs:
        raise BadConfig(f"{fitted.name} needs depth, which images alone do not have. `iadbe test` takes data with it.")


def expand(inputs: Iterable[str | Path]) -> list[Path]:
    """Return the images that files, folders and globs mean, in a stable order, each once."""
    found: dict[Path, None] = {}
    for text in inputs:
        path = Path(text).expanduser()
        if path.is_dir():
            matches = [p for p in sorted(path.rglob("*")) if p.is_file() and image_io.is_image(p)]
        elif path.is_file():
            matches = [path]
        else:
            matches = [p for p in map(Path, sorted(glob.glob(str(path), recursive=True))) if image_io.is_image(p)]
        if not matches:
            what = "has no images in it" if path.is_dir() else "is no file, no folder and no pattern that matches one"
            raise BadConfig(f"{text} {what} (looked for {', '.join(image_io.EXTENSIONS)}).")
        found.update(dict.fromkeys(matches))
    return list(found)


class _Files(Dataset):
    """Image files as a dataset; unreadable ones are left out, their errors kept."""

    def __init__(self, paths: Sequence[Path], intensity: IntensityRange | None = None) -> None:
        self.root = Path()
        self.notes: dict[Path, str] = {}
        self.pixels: dict[str, np.ndarray] = {}
        self.sizes: dict[Path, tuple[int, int]] = {}
        self.errors: dict[Path, str] = {}
        for path in paths:
            try:
                pixels, self.notes[path] = image_io.read_with_note(path, intensity)
                self.pixels[str(path)] = pixels
                self.sizes[path] = pixels.shape[:2]
            except BadData as error:
                self.errors[path] = str(error)

    @property
    def categories(self) -> tuple[str, ...]:
        return ("images",)

    def samples(self) -> tuple[Sample, ...]:
        return tuple(Sample(path, "images", "test", "good", path) for path in self.pixels)

    def image(self, sample: Sample) -> np.ndarray:
        return self.pixels[sample.id]


def _limited(size: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Scale (height, width) down so that the longer side is at most ``side``."""
    share = 1.0 if side is None else min(1.0, side / max(size))
    return size if share == 1 else (max(1, round(size[0] * share)), max(1, round(size[1] * share)))


def _at_size(map_: np.ndarray, fitted: FittedDetector, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to the image's size; where the crop saw nothing it gets the lowest value."""
    view = fitted.detector.view
    whole = np.full((view.resize, view.resize), map_.min(), np.float32)
    start = (view.resize - view.size) // 2
    whole[start : start + view.size, start : start + view.size] = map_
    tensor = torch.from_numpy(whole)[None, None]
    return torch.nn.functional.interpolate(tensor, size, mode="bilinear", align_corners=False)[0, 0].numpy()


def _heat(map_: np.ndarray | None, fitted: FittedDetector) -> np.ndarray | None:
    """Map values to [0, 1] on the detector's fixed scale."""
    low, high = fitted.calibration.low, fitted.calibration.high
    if map_ is None or low is None or high is None:
        return None
    return ((map_ - low) / max(high - low, 1e-12)).clip(0, 1)
