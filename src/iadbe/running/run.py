"""Carry out one run: fit, predict, evaluate. The only module that uses data, settings, detectors and metrics."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from iadbe import __version__, environment, progress
from iadbe.curves.curve import Curve
from iadbe.data.aligned import AlignedDataset, align
from iadbe.data.images import CACHE_BYTES, Images
from iadbe.data.intensity import learn as learn_intensity
from iadbe.data.tiles import settled
from iadbe.data.transforms import TransformedDataset
from iadbe.data.view import view_of
from iadbe.dataset import Dataset, Index
from iadbe.detector import Detector
from iadbe.errors import BadConfig, BadData, BadOption, IadbeError, NoSpace, belongs_to_machine, did_you_mean
from iadbe.evaluation.measure import DetectorOutput, held_out_samples, measure, needs_held_out
from iadbe.files import image_io, pages
from iadbe.files.region_files import have_same_proportions
from iadbe.layers.training.resume import Checkpoints
from iadbe.networks import engines, feature_store
from iadbe.parameters import with_paths
from iadbe.protocol import AUTO, NATIVE, Protocol
from iadbe.registry import load
from iadbe.running import artifacts, code_digest, federation, latency, model_folder, positions
from iadbe.running.data_digests import is_data_of
from iadbe.running.prediction import BATCH, images_for, predict
from iadbe.running.run_record import RunRecord
from iadbe.running.store import Store
from iadbe.running.tiled_detector import TiledDetector
from iadbe.seeds import run_id, seed_for
from iadbe.setting import categories_in
from iadbe.types import (
    UNLABELLED_NOTE,
    Options,
    Row,
    RunResult,
    RunSpec,
    Sample,
    Score,
    Step,
    TrainingImage,
    TrainingLabel,
)

REFIT_NOTE = "it cannot continue training: every step fits it from scratch, and earlier images are forgotten."
FEDERATIONS = ("local", "flower")  # where clients learn
DIFFERENT = 0.01  # share of pixels from which on two regions are not the same


def execute(spec: RunSpec, store: Store, options: Options) -> RunResult:
    """Carry out a run and store its result, which may be an error. An interrupt leaves only checkpoints of training.

    They stay until the run has ended without an error, so that the same call goes on from them. An error that belongs
    to this machine, such as a missing GPU, is returned but not stored: the next call tries again.
    """
    staging = store.staging(spec)
    try:
        result = run(spec, options, staging, store.checkpoints(spec))
        if not result.transient:
            store.save(result, staging)
        if not result.error:
            store.forget_training(store.checkpoints(spec).name)
        return result
    finally:
        artifacts.discard(staging)  # nothing is there any more if it was saved


def run(
    spec: RunSpec, options: Options | None = None, folder: Path | None = None, checkpoints: Path | None = None
) -> RunResult:
    """Carry out a run. A failure becomes a result with an error; artifacts are written to ``folder``.

    Training goes on from the folder ``checkpoints``, and keeps there how far it is.
    """
    options = options or Options()
    record = RunRecord(spec, options, folder)
    try:
        with engines.using(options.engine), feature_store.using(feature_store.open_store(options)) as counters:
            record.counters = counters
            noting = progress.collecting_notes(record.notes)
            with progress.adding_listener(record.losses), progress.counting_steps() as record.steps, noting:
                record.checkpoints = _checkpoints(record, checkpoints)
                _run(record)
            if folder is not None:
                record.losses.write(folder)
    except Exception as error:  # a broken detector must not stop the grid
        if full := NoSpace.of(error):
            raise full from error
        if not isinstance(error, IadbeError):
            traceback.print_exc()  # into the run's log
        record.error = str(error) if isinstance(error, IadbeError) else f"{type(error).__name__}: {error}"
        record.transient = belongs_to_machine(error)
    return record.result()


def _run(record: RunRecord) -> None:
    spec = record.spec
    with record.timed("total"):
        device = environment.device(record.options.device)
        record.device = str(device)
        files = _dataset(spec)
        setting = load("settings", spec.setting)(**spec.setting_params)
        index = Index(files.samples())
        steps = setting.steps(spec.task, index, Random(seed_for(spec, "split")))
        if not is_data_of(spec, files, categories_in(steps)):
            raise BadData(f"{files.root} has changed since the run was planned: files or regions. Plan it again.")
        files.intensity = learn_intensity(files, _normal_training_samples(steps))
        dataset = _aligned(TransformedDataset(files), _normal_training_samples(steps), spec)
        tested = {s.category for step in steps for samples in step.tests.values() for s in samples}
        record.images = {c: sum(s.category == c for s in index.samples) for c in sorted(tested)}
        region = _common_region(dataset, _normal_training_samples(steps)) if record.keeps_model else None
        detector = make(spec, _sizes(dataset, steps)).to(device)
        record.weights = detector.weights()
        with record.timed("read"):
            _check_readable(dataset, steps, detector)
        rng = generator_for(spec)
        for number, step in enumerate(steps):
            _fit_step(record, detector, dataset, steps, number, rng)
            for name, samples in step.tests.items():
                wanted = needs_held_out(spec.metrics) or record.options.keep_maps
                others = held_out_samples(step, samples, index) if wanted else ()
                images, held_out = (
                    images_for(detector, dataset, _normal_images(some), device) for some in (samples, others)
                )
                _test(record, number, name, detector, images, held_out, step is steps[-1])
        record.weights = detector.weights()  # once more: an engine is measured when it is first used
        record.memory["model"] = sum(t.numel() * t.element_size() for t in detector.state_dict().values())
        _keep_model(record, detector, dataset, steps, region)


def _checkpoints(record: RunRecord, folder: Path | None) -> Checkpoints | None:
    """Return the checkpoints of a run, which only the same code, versions and kind of device can use."""
    if folder is None or not math.isfinite(record.options.checkpoints):
        return None
    identity = {
        "run": run_id(record.spec),
        "iadbe": __version__,
        "torch": str(torch.__version__),
        "source": code_digest.of_training(record.spec.detector),
        "device": environment.device(record.options.device).type,
    }
    return Checkpoints(folder, identity, (record.losses, record.steps), record.options.checkpoints)


def generator_for(spec: RunSpec) -> np.random.Generator:
    """Return the generator of a run's fit.

    The stream depends on the whole identity. The entropy is the user's seed alone, so that one-time choices of a
    detector (PaDiM's channels) are the same for every category, as in the papers, and differ with the seed.
    """
    return np.random.default_rng(np.random.SeedSequence(spec.seed, spawn_key=(seed_for(spec, "fit"),)))


def make(spec: RunSpec, sizes: Iterable[tuple[int, int]] = ()) -> Detector:
    """Make a spec's detector: its weights drawn from the run's seed, its view by the protocol.

    ``sizes`` are height and width of the images, for a protocol that follows them.
    """
    kind: type[Detector] = load("detectors", spec.detector)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_for(spec, "init"))
        detector = kind(**with_paths(spec.detector_params, spec.place))
    protocol = Protocol.parse(spec.protocol)
    detector.view = view_of(protocol, kind.paper_view, sizes)
    if protocol.size == NATIVE:
        progress.note(f"the view is the images' own: {detector.view} pixels (height x width).")
    if protocol.tiling is None:
        return detector.eval()
    tiled = TiledDetector(detector, detector.view, settled(protocol.tiling, detector.view.shape))
    if protocol.tiling.side == AUTO:
        one, tiling = tiled.tiles[0], tiled.tiling
        progress.note(
            f"{len(tiled.tiles)} tiles of {one.height} x {one.width} pixels (height x width) that overlap by at least "
            f"{tiling.overlap} for a view of {detector.view}: tiles={tiling}."
        )
    return tiled.eval()


def _sizes(dataset: Dataset, steps: tuple[Step, ...]) -> Iterator[tuple[int, int]]:
    """Yield height and width of all images of a run."""
    for sample in _samples_of(steps):
        yield dataset.image_size(sample)


def _samples_of(steps: tuple[Step, ...]) -> list[Sample]:
    """Return all samples of training and tests, each once."""
    samples = {s.id: s for step in steps for shard in step.shards for s, _ in shard}
    samples |= {s.id: s for step in steps for test in step.tests.values() for s in test}
    return list(samples.values())


def _dataset(spec: RunSpec) -> Dataset:
    kind: type[Dataset] = load("datasets", spec.dataset)
    if "root" not in spec.place and spec.dataset not in ("toy", "elpv"):
        raise BadConfig(f"where is {spec.dataset} on this machine? Give its folder with --data.root DIR.")
    place = {key: spec.place[key] for key in ("root", "roi", "ignore") if key in spec.place}
    return kind.create({**spec.dataset_params, **place})


def _aligned(dataset: Dataset, normal: list[Sample], spec: RunSpec) -> Dataset:
    """Return the dataset whose images the protocol's alignment registers; the same one without it."""
    limits = Protocol.parse(spec.protocol).align
    if limits is None:
        return dataset
    if not normal:
        raise BadConfig(f"alignment needs normal training images, and {spec.setting} has none. Take --align none.")
    return align(dataset, normal, limits)


def _check_readable(dataset: Dataset, steps: tuple[Step, ...], detector: Detector) -> None:
    """Decode all images before the fit, so that unreadable ones are found early; they stay in memory if they fit."""
    samples = _samples_of(steps)
    images = images_for(detector, dataset, _normal_images(tuple(samples)))
    fits = len(samples) * math.prod(detector.view.shape) * (15 if images.depth else 3) <= CACHE_BYTES
    if fits:
        done = 0
        for batch in images.batches(BATCH):
            done += len(batch)
            progress.report("read", done, len(samples))
            del batch
    else:
        for sample in samples:
            if pages.file_of(path := dataset.root / sample.image).is_file():
                image_io.size(path)


def _fit_step(
    record: RunRecord,
    detector: Detector,
    dataset: Dataset,
    steps: tuple[Step, ...],
    number: int,
    rng: np.random.Generator,
) -> None:
    step, again = steps[number], any(any(s.shards) for s in steps[:number])
    clients = [images_for(detector, dataset, shard, record.device) for shard in step.shards if shard]
    if len(clients) > 1:
        together = _federated(record.spec, record.options.federation)
        with record.timed("fit"), record.training(detector, number):
            together(detector, clients, step, rng, record.limited)
    elif clients:
        if again and not detector.keeps_what_it_learnt:
            record.notes.append(REFIT_NOTE)
        with record.timed("fit"), record.training(detector, number), record.limited():
            (detector.update if again else detector.fit)(clients[0], rng)
    detector.eval()


def _federated(spec: RunSpec, place: str) -> Callable[..., None]:
    """Return the function that trains clients together: in this process, or in Flower, which has no time budget."""
    if place not in FEDERATIONS:
        hint = did_you_mean(place, FEDERATIONS)
        raise BadOption(f"there is no federation {place!r}.{hint} There are: {', '.join(FEDERATIONS)}.")
    if place == "local":
        return federation.learn
    chosen = Protocol.parse(spec.protocol)
    if (chosen.budget, chosen.precision, chosen.accumulate) != (None, "fp32", 1):
        raise BadOption(
            "Flower's clients keep no budget of time, train in fp32 and accumulate no batches. "
            f"Take --federation local with {spec.protocol}."
        )
    from iadbe.running import flower  # an extra, which says what to install

    return flower.learn


def _test(
    record: RunRecord, step: int, name: str, detector: Detector, images: Images, held_out: Images, last: bool
) -> None:
    with record.timed("predict"):
        evidence = predict(detector, images, record.folder)
        if len(held_out):
            apart = predict(detector, held_out, record.folder)
            evidence = replace(evidence, held_out=apart.score, held_out_map=apart.map)
    with closing(evidence):
        _evaluate(record, step, name, detector, images, held_out, last, evidence)


def _evaluate(
    record: RunRecord,
    step: int,
    name: str,
    detector: Detector,
    images: Images,
    held_out: Images,
    last: bool,
    evidence: DetectorOutput,
) -> None:
    """Measure what a detector found, and keep what the options ask for."""
    curves: list[Curve] = []
    samples = [e.sample for e in images.items]
    with record.timed("metrics"):
        if all(sample.is_labelled for sample in samples):
            native = Protocol.parse(record.spec.protocol).native
            rows, notes = measure(evidence, images, record.spec.metrics, curves, held_out, native=native)
            rows = {**rows, **detector.own_measures(images)}
        else:
            rows, notes = dict.fromkeys(record.spec.metrics, float("nan")), [UNLABELLED_NOTE]
    record.rows += [Row(step, name, metric, value) for metric, value in rows.items()]
    record.notes += [f"{name}: {note}" for note in notes]
    record.notes += [f"{name}: {note}" for note in positions.notes(images.dataset, samples)]
    scored = zip(samples, evidence.score, strict=True)
    record.scores += [Score(step, name, s.id, s.category, s.defect, float(v), s.group) for s, v in scored]
    if not np.isfinite(record.latency_ms):
        measured = latency.measure(detector, images)
        record.latency_ms, record.latency_range_ms = measured.median_ms, measured.range_ms
        if measured.range_ms:
            record.cpu_seconds["latency"] = measured.cpu_ms / 1000
            record.other_cores = measured.other_cores
    if record.folder is not None:
        altered = any(sample.transform for sample in samples)
        count = min(1, record.options.images) if altered else record.options.images
        artifacts.keep_images(record.folder / "images", images, evidence, count if last else 0)
        positions.write(record.folder, name, images.dataset, samples)
        artifacts.keep_curves(record.folder, name, curves if last else ())
        if record.options.keep_maps and evidence.map is not None:
            artifacts.keep_maps(record.folder / "maps", f"{step}-{name}", samples, evidence.map)
            good = [e.sample for e in held_out.items]
            artifacts.keep_maps(record.folder / "held_out_maps", f"{step}-{name}", good, evidence.held_out_map)
        if not altered:
            record.calibration = artifacts.calibrated(evidence, images)


def _keep_model(
    record: RunRecord, detector: Detector, dataset: Dataset, steps: tuple[Step, ...], region: np.ndarray | None
) -> None:
    if record.folder is None or not record.keeps_model:
        return
    about: Mapping[str, Any] = {
        "run": run_id(record.spec),
        "dataset": record.spec.dataset,
        "task": record.spec.task,
        "setting": record.spec.setting,
        "protocol": record.spec.protocol,
    }
    spec = record.spec
    training_digests = artifacts.training_digests(dataset, steps, detector.view)
    model_folder.save(
        record.folder / "model", detector, spec.detector, spec.detector_params, record.calibration, about,
        training_digests, dataset.intensity, region,
        dataset.templates if isinstance(dataset, AlignedDataset) else None,
    )  # fmt: skip


def _common_region(dataset: Dataset, samples: list[Sample]) -> np.ndarray | None:
    """Return the region that all categories of some samples have; None where none has one, or images have their own.

    Raises :class:`BadConfig` where categories differ: a model cannot know which category an image is of.
    """
    first = {s.category: s for s in samples}
    found = {category: dataset.common_region(sample) for category, sample in first.items()}
    regions = {category: region for category, region in found.items() if region is not None}
    if not regions or any(dataset.region(first[category]) is not None for category in found.keys() - regions.keys()):
        return None
    common = next(iter(regions.values()))
    other = next((c for c, region in found.items() if region is None or not _is_same(common, region)), None)
    if other is None:
        return common
    raise BadConfig(
        f"a model of several categories cannot be kept, because {next(iter(regions))} and {other} have different "
        "regions, and an image does not say its category. Train each category alone, give all the same region, or keep "
        "no model."
    )


def _is_same(region: np.ndarray, other: np.ndarray) -> bool:
    """Return whether two regions are one, up to their sizes and the rounding that comes with these."""
    if not have_same_proportions(region.shape, other.shape):
        return False
    return bool((image_io.resized(region, *other.shape) != other).mean() < DIFFERENT)


def _normal_training_samples(steps: tuple[Step, ...]) -> list[Sample]:
    shards = (shard for step in steps for shard in step.shards)
    return [sample for shard in shards for sample, label in shard if label is TrainingLabel.NORMAL]


def _normal_images(samples: tuple[Sample, ...]) -> tuple[TrainingImage, ...]:
    return tuple(TrainingImage(s) for s in samples)
