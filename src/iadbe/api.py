"""The main jobs from Python, the same as on the command line.

import iadbe

for result in iadbe.train("patchcore", "toy", categories=["metal"], coreset=0.1):
    print(result.folder, result.rows)
for image in iadbe.predict(result.folder, ["images/*.png"]):
    print(image.path, image.score, image.defective)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iadbe import environment, registry, system
from iadbe.data import resolve
from iadbe.data.aligned import AlignedDataset
from iadbe.dataset import Index
from iadbe.errors import BadConfig, BadData, RunFailed
from iadbe.evaluation.calibration import Calibration, ImageScores, ThresholdRule
from iadbe.files.groups import groups_of
from iadbe.files.input_images import Input, InputImage, expand, inputs_of
from iadbe.files.region_files import RegionFiles
from iadbe.metric import DEFAULT
from iadbe.networks import engines
from iadbe.running import model_folder
from iadbe.running.inference import BATCH, ImageResult, results_of
from iadbe.running.model_folder import FittedDetector
from iadbe.types import UNLABELLED_NOTE, Options, Row, RunResult, TrainingImage

if TYPE_CHECKING:  # `predict` needs none of it: whoever calls it does not wait for these imports
    from iadbe.export.result import Exported
    from iadbe.results.grid_result import GridResult

STORE = "runs"  # the folder for results where none is named
HIGHEST = 3  # of the good images that are named after a calibration
NOT_KNOWN = "make sure that none of it is here, for it scores too low"


@dataclass(frozen=True, slots=True, repr=False)
class TrainedRun:
    """A run of `train`: its folder and its result."""

    folder: Path
    result: RunResult

    @property
    def rows(self) -> tuple[Row, ...]:
        """The run's metrics."""
        return self.result.rows

    def __repr__(self) -> str:
        spec, last = self.result.spec, max((row.step for row in self.rows), default=0)
        values = ", ".join(f"{row.metric} {row.value:.4g}" for row in self.rows if row.step == last)
        return f"TrainedRun({spec.detector} on {spec.dataset} {spec.task}, seed {spec.seed}: {values}; {self.folder})"


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
    """Fit a detector on each category, test it and keep the model; ``params`` are the detector's own.

    Raises :class:`RunFailed` if a run ends with an error, after the others have been carried out.
    """
    from iadbe.running import plan
    from iadbe.running.run import execute
    from iadbe.running.store import Store

    grid = {
        "detectors": [{"name": detector, "params": params}],
        "data": [{"name": data, "categories": list(categories), "params": data_params or {}}],
        "settings": [{"name": setting, "params": setting_params or {}}],
        "seeds": [seed],
        "protocol": protocol,
    }
    registry.trust_written(plan.class_names_in(grid))
    here = Store(store)
    planned = plan.expand(grid, here)
    if not planned.runs:
        raise BadConfig("nothing can be trained: " + " ".join(map(str, planned.skipped)))
    wanted = replace(options or Options(), keep_model=True)
    trained = [TrainedRun(here.path(spec), execute(spec, here, wanted)) for spec in planned.runs]
    if failed := [run.result for run in trained if run.result.error]:
        reasons = dict.fromkeys(f"{r.spec.detector} on {r.spec.dataset} {r.spec.task}: {r.error}" for r in failed)
        raise RunFailed(f"{len(failed)} of {len(trained)} runs failed. {' '.join(reasons)}")
    return trained


def benchmark(
    grid: Mapping[str, Any] | str | Path,
    *,
    store: str | Path = STORE,
    options: Options | None = None,
    trust: Sequence[str] = (),
    **how: Any,
) -> GridResult:
    """Run what is missing of a grid (a mapping or a YAML file); ``how`` goes to :func:`iadbe.running.pool.run_all`.

    Failed runs do not raise: they are in the result's ``failed``.

    A file may name classes outside the registries only if ``trust`` names them too.
    """
    from iadbe.results.grid_result import GridResult
    from iadbe.running import plan, pool
    from iadbe.running.store import Store

    registry.trust(*trust)
    if isinstance(grid, Mapping):
        registry.trust_written(plan.class_names_in(grid))
    here = Store(store)
    planned = plan.expand(grid if isinstance(grid, Mapping) else plan.read(Path(grid)), here)
    if not planned.runs:
        raise BadConfig("there is nothing to run. " + " ".join(f"{skip}." for skip in planned.skipped))
    summary = pool.run_all(planned.runs, here, options or Options(), **how)
    results = tuple(pool.results(here, planned.runs, summary.transient))
    return GridResult(results, summary, tuple(map(str, planned.skipped)))


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
    metrics: Sequence[str] = (),  # noqa: PT028
    device: str = "auto",  # noqa: PT028
    trust: Sequence[str] = (),  # noqa: PT028
    notes: list[str] | None = None,  # noqa: PT028
    **data_params: Any,
) -> dict[str, dict[str, float]]:
    """Test a fitted detector on the test split of each category: values by metric, by category.

    ``metrics`` are names of rows; empty: the usual ones and those of the data's own evaluation. Sentences that a reader
    of the values must know, such as which images pixel metrics leave out, are appended to ``notes``.
    """
    from iadbe.evaluation.measure import measure
    from iadbe.running.prediction import images_for
    from iadbe.running.prediction import predict as score_images

    fitted = model if isinstance(model, FittedDetector) else load(model, device, trust=trust)
    registry.trust_written([data, *metrics])
    found = resolve.find(data, **data_params)
    dataset = resolve.make(found.name, found.params)
    dataset.intensity = fitted.intensity or dataset.intensity
    if dataset.region_files is None and fitted.region is not None:
        dataset.region_files = RegionFiles.of_mask(fitted.region, "the model")
    if fitted.templates:
        dataset = AlignedDataset(dataset, fitted.templates)
    index = Index(dataset.samples())
    rows = {}
    for category in dataset.chosen_categories(categories):
        where = environment.device(device)
        images = images_for(fitted.detector, dataset, [TrainingImage(s) for s in index.test(category)], where)
        if not len(images):
            raise BadData(f"{category} has no test images.")
        wanted = metrics or (*DEFAULT, *dataset.official_metrics)
        if not all(e.sample.is_labelled for e in images.items):
            raise BadData(f"{category}: {UNLABELLED_NOTE} `iadbe predict --data` gives the scores.")
        rows[category], caveats = measure(score_images(fitted.detector, images), images, wanted)
        if notes is not None:
            notes += [f"{category}: {note}" for note in caveats]
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
    look: float | None = None,
    confidence: float | None = None,
    group: str = "",
    device: str = "auto",
    trust: Sequence[str] = (),
) -> CalibrationResult:
    """Choose thresholds for a fitted detector on images that it was not trained on, and store them in its folder.

    :class:`iadbe.evaluation.calibration.ThresholdRule` explains ``overkill`` (``--reject`` on the
    command line), ``escape``, ``cost``, ``defects``, ``look`` and ``confidence``.
    ``group`` says which images belong together and count as one (several of one part or lot): a regular expression on
    their paths, or ``FILE.csv:COLUMN``; see :mod:`iadbe.files.groups`.
    """
    rule = ThresholdRule(overkill, escape, cost, defects, look, confidence)
    folder = model_folder.resolve_folder(model)
    if not system.is_writable(folder):
        raise BadConfig(f"{folder} is read-only, so no threshold can be kept in it. Copy it, and calibrate the copy.")
    good, bad = ([given] if isinstance(given, (str, Path)) else given for given in (good, bad))
    good_paths, bad_paths = expand(good), expand(bad)
    rule.check(len(good_paths), len(bad_paths))
    fitted = load(folder, device, trust=trust)
    _check_needs(fitted)
    notes = [] if fitted.learnt is not None else [f"{folder} does not say what it learnt: {NOT_KNOWN}."]
    taken: dict[str, Path] = {}
    goods, results, learnt = _score_set(fitted, good_paths, device, taken, "good", notes)
    bads, others, _ = _score_set(fitted, bad_paths, device, taken, "defective", notes)
    if group:
        goods, bads = _grouped(goods, results, group), _grouped(bads, others, group)
    rule.check(len(goods.score), len(bads.score), learnt, goods.unit)
    found = rule.calibrate(goods, bads)
    model_folder.save_calibration(folder, found)
    highest = [
        replace(f, threshold=found.threshold, look_threshold=found.look_threshold)
        for f in sorted(results, key=lambda f: -f.score)[:HIGHEST]
    ]
    return CalibrationResult(folder, found, tuple(notes), tuple(highest))


def _grouped(scores: ImageScores, results: Sequence[ImageResult], rule: str) -> ImageScores:
    """Return the scores of groups of images by a rule on their paths."""
    paths = [found.path.as_posix() for found in results]
    groups = groups_of(Path(), rule, paths, "group")
    return scores.by_group([groups.get(path, "") for path in paths])


def _score_set(
    fitted: FittedDetector, paths: Sequence[Path], device: str, taken: dict[str, Path], kind: str, notes: list[str]
) -> tuple[ImageScores, list[ImageResult], int]:
    """Score one set of images; return the scores, the images and how many were training images.

    Training images, duplicates, unreadable files and images without the part are left out, with a note. ``taken`` maps
    the digests of all images so far to their paths, and is updated.
    """
    kept: list[ImageResult] = []
    tops, middles = [], []
    own: set[str] = set()
    learnt = twice = lost = 0
    for found in results_of(fitted, inputs_of(paths), None, environment.device(device)):
        if found.error:
            notes.append(f"{found.error.rstrip('.')}: it is left out.")
        elif found.position_found is False:
            lost += 1
        elif fitted.was_trained_on(found.key):
            learnt += 1
        elif found.key in own:
            twice += 1
        elif found.key in taken:
            raise BadConfig(f"{found.path} is the same image as {taken[found.key]}: is it good or defective?")
        else:
            own.add(found.key)
            taken[found.key] = found.path
            if (map_ := found.map) is not None:
                tops.append(map_.max())
                middles.append(np.median(map_[::4, ::4]))
            kept.append(replace(found, view_map=None))
    for count, why in (
        (learnt, "the detector has learnt them"),
        (twice, "they are there twice"),
        (lost, "the position of the part was not found"),
    ):
        if count:
            notes.append(f"{count} of {len(paths)} {kind} images are left out: {why}.")
    score = np.array([f.score for f in kept], np.float32)
    maps = (np.array(tops, np.float32), np.array(middles, np.float32)) if tops else (None, None)
    return ImageScores(score, *maps), kept, learnt


def predict(
    model: str | Path | FittedDetector,
    inputs: Input | Iterable[Input],
    *,
    threshold: float | None = None,
    device: str = "auto",
    engine: str = "torch",
    batch: int = BATCH,
    map_side: int | None = None,
    trust: Sequence[str] = (),
) -> Iterator[ImageResult]:
    """Score images; an unreadable one gives a result with an error.

    ``inputs`` are files, folders (searched through), globs, videos (scored frame by frame), images of Pillow, or
    arrays: (H, W) or (H, W, 3) uint8, or a batch of them. Arguments are checked at once; images are scored while the
    results are iterated. A model that is already loaded keeps its engine. ``map_side`` limits the longer side of the
    maps, in pixels; by default they have the image's size. A given ``threshold`` decides alone: between the model's own
    two thresholds no image is to be looked at then.
    """
    fitted = model if isinstance(model, FittedDetector) else load(model, device, engine, trust=trust)
    return score(fitted, inputs_of(inputs), threshold=threshold, device=device, batch=batch, map_side=map_side)


def score(
    fitted: FittedDetector,
    images: Sequence[InputImage],
    *,
    threshold: float | None = None,
    device: str = "auto",
    batch: int = BATCH,
    map_side: int | None = None,
) -> Iterator[ImageResult]:
    """Score images with a loaded model, one result for each."""
    _check_needs(fitted)
    return results_of(fitted, images, threshold, environment.device(device), batch, map_side)


def export(
    model: str | Path | FittedDetector,
    file: str | Path | None = None,
    *,
    to: str = "onnx",
    images: Any = (),
) -> Exported:
    """Write a fitted detector as one file that runs without torch, and compare it with torch.

    Args:
        model: a model's folder, or a loaded one
        file: where; None: the detector's name in the working directory
        to: onnx or torch
        images: what file and torch both score: see :func:`predict`; none: drawn patterns
    """
    from iadbe.export.result import write

    fitted = model if isinstance(model, FittedDetector) else load(model)
    shown = [image.read(fitted.intensity)[0] for image in inputs_of(images)] if images else []
    return write(fitted, None if file is None else Path(file), to, shown)


def _check_needs(fitted: FittedDetector) -> None:
    if "depth" in fitted.detector.needs:
        raise BadConfig(f"{fitted.name} needs depth, which images alone do not have. `iadbe test` takes data with it.")
