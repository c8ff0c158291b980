"""The main jobs from Python, the same as on the command line.

import iadbe

for result in iadbe.train("patchcore", "toy", categories=["metal"], coreset=0.1):
    print(result.folder, result.rows)
for image in iadbe.predict(result.folder, ["images/*.png"]):
    print(image.path, image.score, image.defective)
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iadbe import environment, registry, system
from iadbe.data import resolve
from iadbe.data.aligned import AlignedDataset
from iadbe.dataset import Index
from iadbe.errors import BadConfig, BadData, RunFailed
from iadbe.evaluation.calibration import Calibration, ThresholdRule
from iadbe.files.input_images import Input, InputImage, expand, inputs_of
from iadbe.files.region_files import RegionFiles
from iadbe.metric import DEFAULT
from iadbe.networks import engines
from iadbe.running import calibration_images, model_folder
from iadbe.running.calibration_images import Grouping, ScoredSets, region_rule
from iadbe.running.inference import BATCH, ImageResult, results_of
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.parts import MAXIMUM, Part, ViewScore, named_by, parts_of
from iadbe.types import UNLABELLED_NOTE, Options, Row, RunResult, TrainingImage

if TYPE_CHECKING:  # `predict` needs none of it: whoever calls it does not wait for these imports
    from iadbe.exporting.result import Exported
    from iadbe.results.grid_result import GridResult

STORE = "runs"  # the folder for results where none is named
HIGHEST = 3  # of the good images that are named after a calibration
NOT_KNOWN = "make sure that none of it is here, for it scores too low"


@dataclass(frozen=True, slots=True, repr=False)
class TrainedRun:
    """A run of `train`: its folder and its result. It may stand wherever a model's folder is asked for."""

    folder: Path
    result: RunResult

    @property
    def rows(self) -> tuple[Row, ...]:
        """The run's metrics."""
        return self.result.rows

    def __fspath__(self) -> str:
        return str(self.folder)

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


ModelFolder = str | os.PathLike[str] | Sequence[TrainedRun]  # a list of one run, as `train` returns it


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
    model: ModelFolder, device: str = "auto", engine: str = "torch", *, trust: Sequence[str] = ()
) -> FittedDetector:
    """Load a fitted detector from its model folder or its run's folder; ``engine`` computes its backbone.

    What :func:`train` returns is such a folder too, if it is one run.
    A model of a class outside the registries is loaded only if ``trust`` names that class: loading it runs its code.
    """
    registry.trust(*trust)
    with engines.using(engine):
        return model_folder.load(_path(model), str(environment.device(device)))


def test(
    model: ModelFolder | FittedDetector,
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
    model: ModelFolder,
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
    part: str = "",
    view: str = "",
    combine: str = MAXIMUM,
    min_area: int = 0,
    max_count: int = 0,
    zones: str | Path = "",
    zone_thresholds: Mapping[str, float] | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> CalibrationResult:
    """Choose thresholds for a fitted detector on images that it was not trained on, and store them in its folder.

    :class:`iadbe.evaluation.calibration.ThresholdRule` explains ``overkill`` (``--reject`` on the command line),
    ``escape``, ``cost``, ``defects``, ``look`` and ``confidence``. ``group`` says which images belong together and
    count as one (several of one part or lot): a regular expression on their paths, or ``FILE.csv:COLUMN``; see
    :mod:`iadbe.files.groups`.

    ``part`` is such a rule for images of one part, as :func:`predict_parts` takes it. With ``combine="fisher"`` they
    become one score by Fisher's method (:mod:`iadbe.runtime.parts`), the images of each ``view`` (a rule again; all are
    one view without it) by their own good scores; half of the good parts gives these, the other half the threshold.

    With one of ``min_area``, ``max_count`` and ``zones`` verdicts follow from regions of the anomaly map
    (:mod:`iadbe.runtime.regions`): those of at least ``min_area`` pixels count, and up to ``max_count`` of them are
    tolerated. ``zones`` is a file of named areas (:mod:`iadbe.runtime.zones`) in which ``zone_thresholds`` (of the raw
    map, by name) take the place of the calibrated one.
    """
    grouping = Grouping(group, part, view, combine)
    rule = ThresholdRule(overkill, escape, cost, defects, look, confidence)
    folder = model_folder.resolve_folder(_path(model))
    if not system.is_writable(folder):
        raise BadConfig(f"{folder} is read-only, so no threshold can be kept in it. Copy it, and calibrate the copy.")
    good, bad = ([given] if isinstance(given, (str, Path)) else given for given in (good, bad))
    good_paths, bad_paths = expand(good), expand(bad)
    rule.check(len(good_paths), len(bad_paths))
    fitted = load(folder, device, trust=trust)
    _check_needs(fitted)
    regions = region_rule(fitted, good_paths, min_area, max_count, zones, zone_thresholds)
    rule.check_regions(regions)
    notes = [] if fitted.learnt is not None else [f"{folder} does not say what it learnt: {NOT_KNOWN}."]
    found, goods = ScoredSets(fitted, device, regions, notes, grouping).calibrate(rule, good_paths, bad_paths)
    calibration_images.keep(folder, found, goods)
    highest = [replace(f, threshold=found.threshold, look_threshold=found.look_threshold) for f in goods[:HIGHEST]]
    return CalibrationResult(folder, found, tuple(notes), tuple(highest))


def predict(
    model: ModelFolder | FittedDetector,
    inputs: Input | Iterable[Input],
    *,
    threshold: float | None = None,
    device: str = "auto",
    engine: str = "torch",
    batch: int = BATCH,
    map_side: int | None = None,
    measure: bool = False,
    trust: Sequence[str] = (),
) -> Iterator[ImageResult]:
    """Score images; an unreadable one gives a result with an error.

    ``inputs`` are files, folders (searched through), globs, videos (scored frame by frame), images of Pillow, or
    arrays: (H, W) or (H, W, 3) uint8, or a batch of them. Arguments are checked at once; images are scored while the
    results are iterated. A model that is already loaded keeps its engine. ``map_side`` limits the longer side of the
    maps, in pixels; by default they have the image's size. A given ``threshold`` decides alone: between the model's own
    two thresholds no image is to be looked at then. ``measure`` gives results their ``channels`` for drift.
    """
    fitted = model if isinstance(model, FittedDetector) else load(model, device, engine, trust=trust)
    return score(
        fitted, inputs_of(inputs), threshold=threshold, device=device, batch=batch, map_side=map_side, measure=measure
    )  # fmt: skip


def predict_parts(
    model: ModelFolder | FittedDetector,
    inputs: Input | Iterable[Input],
    *,
    part: str,
    view: str = "",
    threshold: float | None = None,
    device: str = "auto",
    trust: Sequence[str] = (),
) -> list[Part]:
    """Score the images of parts and return one verdict for each part: by the maximum, or the model's combination.

    ``part`` and ``view`` are rules on paths: regular expressions or ``FILE.csv:COLUMN`` (:mod:`iadbe.files.groups`).
    The other arguments are those of :func:`predict`.
    """
    fitted = model if isinstance(model, FittedDetector) else load(model, device, trust=trust)
    found = [
        ViewScore(image.path, image.score, image.scaled, image.verdict, image.error)
        for image in score(fitted, inputs_of(inputs), threshold=threshold, device=device)
    ]
    views = named_by([image.path for image in found], view, "view")
    named = [replace(image, view=name) for image, name in zip(found, views, strict=True)]
    own = fitted.calibration
    if threshold is not None:
        return parts_of(named, part, threshold)
    return parts_of(named, part, own.threshold, own.combination)


def score(
    fitted: FittedDetector,
    images: Sequence[InputImage],
    *,
    threshold: float | None = None,
    device: str = "auto",
    batch: int = BATCH,
    map_side: int | None = None,
    measure: bool = False,
) -> Iterator[ImageResult]:
    """Score images with a loaded model, one result for each."""
    _check_needs(fitted)
    return results_of(fitted, images, threshold, environment.device(device), batch, map_side, measure=measure)


def export(
    model: ModelFolder | FittedDetector,
    file: str | Path | None = None,
    *,
    to: str = "onnx",
    precision: str = "fp32",
    images: Any = (),
    allow: Collection[str] = (),
    sign: str | Path | None = None,
    sbom: bool = False,
    runtime: str | Path | None = None,
    **trial: Any,
) -> Exported:
    """Write a fitted detector as one file that runs without torch, and compare it with torch.

    Args:
        model: a model's folder, or a loaded one
        file: where; None: the detector's name in the working directory
        to: onnx, openvino, torch, or web: ``file`` is a folder then, with a page in which a browser scores images
        precision: of the weights: fp32, fp16 or int8, which quantises a backbone with ``images``, which are good ones
        images: what file and torch both score: see :func:`predict`; none: images that the model has learnt, if they
            are there, else drawn patterns
        allow: what licences need you to say: ``noncommercial``, the file is for research alone; ``own``, the images
            are your own and only lie in the layout of a published data set
        sign: a private Ed25519 key as a PEM file; the signature is written beside the file
        sbom: write a bill of materials (CycloneDX) beside the file
        runtime: of a page: a folder with ``onnxruntime-web``; None: npm is asked for it
        trial: of int8: test images ``good`` and ``bad``, ``tolerance``, ``force``: :class:`iadbe.exporting.trial.Trial`
    """
    from iadbe.exporting import bill_of_materials, web_folder
    from iadbe.exporting.example_images import given_or_learnt
    from iadbe.exporting.result import write
    from iadbe.exporting.trial import Trial
    from iadbe.runtime import signature

    fitted = model if isinstance(model, FittedDetector) else load(model)
    shown, source = given_or_learnt(
        fitted, () if isinstance(images, (tuple, list)) and not images else inputs_of(images)
    )
    if sign is not None:
        signature.private_key(Path(sign))  # a key that cannot be used is told before the work
    target = None if file is None else Path(file)
    if to == "web":
        found = web_folder.export(fitted, target, None if runtime is None else Path(runtime), shown, source, allow)
    else:
        found = write(fitted, target, to, shown, precision, source, allow, Trial.of(fitted, **trial))
    if sbom:
        bill_of_materials.write(found.files, found.origins, f"{fitted.name} of {fitted.about.get('task', 'images')}")
    if sign is not None:
        signature.sign(found.files, Path(sign))
    return found


def _path(model: ModelFolder) -> Path:
    """Return a model's path, which may be given by the only run of `train`."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model)
    if len(model) != 1:
        tasks = ", ".join(f"[{n}] {run.result.spec.task}" for n, run in enumerate(model))
        raise BadConfig(f"these are {len(model)} models ({tasks or 'no run'}), not one: choose one by its place.")
    return model[0].folder


def _check_needs(fitted: FittedDetector) -> None:
    if "depth" in fitted.detector.needs:
        raise BadConfig(f"{fitted.name} needs depth, which images alone do not have. `iadbe test` takes data with it.")
