"""A submission to the evaluation server of MVTec AD 2: maps and masks of its private test splits.

The maps come from a run's saved model, which predicts again, or from maps that a run on a private split has kept. Each
is resized to its image's own size. Threshold: mean and three standard deviations of the map values of the normal
validation images, the baseline that the server's utilities name (see :mod:`iadbe.files.ad2_submission`).

Half precision has three decimal digits and ends at 65504, and raw maps of some detectors leave it no room. So the maps
of an object are shifted and scaled by the two numbers of its validation images, ``(map - mean) / deviation``. Metrics
that sort pixels do not change, and the mask is where the written map is above ``deviations``.

Everything is written file by file below ``FILE.parts``, so an interrupted call goes on when it is repeated. One image
is in memory at a time, beside the small views of a batch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from iadbe import progress, registry, system
from iadbe.data.view import view_of
from iadbe.dataset import Dataset
from iadbe.errors import BadConfig, BadData
from iadbe.files import ad2_submission, decoding
from iadbe.files.ad2_submission import COUNTS, MAPS, MASKS, SUFFIXES, Sizes
from iadbe.files.input_images import InputImage
from iadbe.networks import feature_store
from iadbe.protocol import Protocol
from iadbe.running import artifacts, model_folder
from iadbe.running.inference import ImageResult, results_of
from iadbe.running.store import Store
from iadbe.types import IntensityRange, RunResult, Sample

if TYPE_CHECKING:
    import torch

DATASET = "mvtec_ad2"
LARGEST = float(np.finfo(np.float16).max)
PLAN = "plan.json"


@dataclass(frozen=True)
class Source:
    """A run whose model, or whose kept maps, give the maps of an object in a split."""

    folder: Path
    result: RunResult
    has_model: bool


@dataclass
class Statistics:
    """Mean and standard deviation of map values, added up map by map in double precision."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared distances from the mean

    def add(self, values: np.ndarray) -> None:
        """Add the values of a map, by the rule of Chan et al. (1979)."""
        mean = float(values.mean(dtype=np.float64))
        squares = float(np.square(values - mean, dtype=np.float64).sum())
        total = self.count + values.size
        self.squares += squares + (mean - self.mean) ** 2 * self.count * values.size / total
        self.mean += (mean - self.mean) * values.size / total
        self.count = total

    @property
    def deviation(self) -> float:
        """The standard deviation, of all values as the population; 1 where they are all the same."""
        return float(np.sqrt(self.squares / self.count)) or 1.0

    def standardised(self, values: np.ndarray) -> np.ndarray:
        """Return a map as (H, W) float16, in deviations from the mean."""
        return ((values - self.mean) / self.deviation).clip(-LARGEST, LARGEST).astype(np.float16)


@dataclass
class Submission:
    """What is submitted: the data, the source of each object and split, and where it goes."""

    data: dict[str, Dataset]  # by split; any of them has the validation images
    sources: dict[str, Source]  # by "OBJECT/SPLIT"
    out: Path
    device: torch.device
    deviations: float = 3.0

    @property
    def parts(self) -> Path:
        """The folder of what is written before the archive is whole."""
        return self.out.with_name(f"{self.out.name}.parts")

    def images(self) -> Sizes:
        """Return the size of every image of the private splits, from their headers."""
        return images_of(self.data)

    def write(self) -> ad2_submission.CheckResult:
        """Write what is missing, check all of it, and pack it. Raises :class:`BadData` where there is a fault."""
        if not self.out.name.endswith(".tar.gz"):
            raise BadConfig(f"{self.out} is not the name of an archive: the server takes .tar.gz.")
        ad2_submission.tifffile()  # before hours of work
        statistics = self._opened()
        files = self.parts / "files"
        todo = {key: self._missing(key, files) for key in self.sources}
        total = sum(map(len, self._tests().values()))
        done = total - sum(map(len, todo.values()))
        for key, samples in sorted(todo.items(), key=lambda entry: (str(self.sources[entry[0]].folder), entry[0])):
            if not samples:
                continue
            split = key.rpartition("/")[2]
            with _Maps(self.sources[key], self.data[split], self.device) as maps:
                if key not in statistics:
                    statistics[key] = self._validated(key, maps)
                    self._keep(statistics)
                for sample, map_ in maps.of(samples):
                    half = statistics[key].standardised(map_)
                    ad2_submission.write_mask(
                        files / ad2_submission.file_name(MASKS, _image(sample)), half > self.deviations
                    )
                    ad2_submission.write_map(files / ad2_submission.file_name(MAPS, _image(sample)), half)
                    done += 1
                    progress.report("maps", done, total)
        found = ad2_submission.check(files, self.images())
        if found.faults:
            raise BadData(" ".join(found.faults))
        ad2_submission.pack(files, self.out)
        system.remove_tree(self.parts)
        return found

    def _tests(self) -> dict[str, list[Sample]]:
        found: dict[str, list[Sample]] = {key: [] for key in self.sources}
        for split, dataset in self.data.items():
            for sample in dataset.samples():
                if sample.split == "test":
                    found[f"{sample.category}/{split}"].append(sample)
        return found

    def _missing(self, key: str, files: Path) -> list[Sample]:
        """Return the images of an object and split without both of their files; the map is written last."""
        return [s for s in self._tests()[key] if not (files / ad2_submission.file_name(MAPS, _image(s))).is_file()]

    def _validated(self, key: str, maps: _Maps) -> Statistics:
        """Return the statistics of the maps of an object's validation images."""
        category, _, split = key.partition("/")
        samples = [s for s in self.data[split].samples() if s.split == "val" and s.category == category]
        if not samples:
            raise BadData(f"{category} has no validation images to choose the threshold on.")
        found = Statistics()
        for number, (_, map_) in enumerate(maps.of(samples, held_out=True)):
            found.add(map_)
            progress.report("validation", number + 1, len(samples))
        return found

    def _plan(self) -> dict[str, Any]:
        return {
            "runs": {key: source.folder.name for key, source in self.sources.items()},
            "deviations": self.deviations,
        }

    def _opened(self) -> dict[str, Statistics]:
        """Return the statistics that an interrupted call has left."""
        file = self.parts / PLAN
        if not file.is_file():
            self.parts.mkdir(parents=True, exist_ok=True)
            self._keep({})
            return {}
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            found = {key: Statistics(**value) for key, value in kept.pop("statistics").items()}
        except (ValueError, TypeError, LookupError, AttributeError, OSError) as error:
            raise BadData(f"{file} is damaged ({error}). Remove {self.parts}.") from error
        if kept != self._plan():
            raise BadConfig(f"{self.parts} is the beginning of another submission. Remove it, or choose another --out.")
        return found

    def _keep(self, statistics: dict[str, Statistics]) -> None:
        kept = {**self._plan(), "statistics": {key: vars(value) for key, value in statistics.items()}}
        part = self.parts / f".{PLAN}"
        part.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        system.replace(part, self.parts / PLAN)

    def notes(self) -> list[str]:
        """Return what makes the server refuse the archive although it is right for this data."""
        have = {key: len(samples) for key, samples in self._tests().items()}
        wanted = {f"{name}/{split}": count for name, count in COUNTS.items() for split in SUFFIXES}
        other = [key for key in {**wanted, **have} if have.get(key, 0) != wanted.get(key, 0)]
        if not other:
            return []
        text = f"{have.get(other[0], 0)} of {wanted.get(other[0], 0)} images"
        return [
            f"the data is not the whole published data set ({other[0]}: {text}): the server would refuse the archive."
        ]


def images_of(data: Mapping[str, Dataset]) -> Sizes:
    """Return the size of every test image, from its header; ``data`` is the data set by private split."""
    return {
        _image(sample): _size(dataset.root / sample.image)
        for dataset in data.values()
        for sample in dataset.samples()
        if sample.split == "test"
    }


def plan(folders: Sequence[Path], data: dict[str, Dataset], out: Path, device: torch.device) -> Submission:
    """Return the submission that runs make possible. Raises :class:`BadConfig` that says which runs are lacking."""
    objects = next(iter(data.values())).categories
    sources: dict[str, Source] = {}
    for folder in folders:
        result = Store(folder.parent).load(folder.name)
        if result.spec.dataset != DATASET or result.error:
            what = f"ended with an error: {result.error}" if result.error else f"is of {result.spec.dataset}"
            raise BadConfig(f"the run {folder.name} {what}. Give runs on {DATASET}.")
        has_model = (folder / "model" / model_folder.CARD).is_file()
        splits = tuple(SUFFIXES) if has_model else _kept_splits(folder, result)
        for category in sorted({score.category for score in result.scores} & set(objects)):
            for split in splits:
                if (other := sources.get(f"{category}/{split}")) is not None:
                    raise BadConfig(
                        f"{other.folder.name} and {folder.name} both give maps of {category}. Leave out one of them."
                    )
                sources[f"{category}/{split}"] = Source(folder, result, has_model)
    lacking = [key for name in objects for split in SUFFIXES if (key := f"{name}/{split}") not in sources]
    if lacking:
        raise BadConfig(
            f"no run gives maps of {', '.join(lacking[:4])}{' and others' if len(lacking) > 4 else ''}. Give a run for "
            "each object of the data that has kept its model (--keep-models)."
        )
    return Submission(data, sources, out, device)


def _kept_splits(folder: Path, result: RunResult) -> tuple[str, ...]:
    """Return the private split whose maps a run has kept."""
    split = f"test_{result.spec.dataset_params.get('test_type', 'public')}"
    if split in SUFFIXES and all(any((folder / kind).glob("*.npz")) for kind in ("maps", "held_out_maps")):
        return (split,)
    raise BadConfig(
        f"the run {folder.name} kept neither its model nor maps of a private split. Remove its folder and run it again "
        f"with --keep-models, or twice with --keep-maps: with --data.test_type private, and private_mixed."
    )


class _Maps:
    """The maps of one source at the size of their images."""

    def __init__(self, source: Source, data: Dataset, device: torch.device) -> None:
        self.source, self.data, self.device = source, data, device
        self.fitted: model_folder.FittedDetector | None = None

    def __enter__(self) -> _Maps:
        if self.source.has_model:
            self.fitted = model_folder.load(self.source.folder / "model", str(self.device))
        return self

    def __exit__(self, *_: object) -> None:
        self.fitted = None

    def of(self, samples: Sequence[Sample], held_out: bool = False) -> Iterator[tuple[Sample, np.ndarray]]:
        """Yield samples with their maps, (H, W) float32 at the image's size, one at a time, in any order."""
        found = self._kept(samples, held_out) if self.fitted is None else self._predicted(self.fitted, samples)
        for sample, result in found:
            if result.error:
                raise BadData(result.error)
            if (map_ := result.map) is None:
                name = self.source.result.spec.detector
                raise BadConfig(f"{name} does not say where defects are, and the server rates nothing else.")
            if not np.isfinite(map_).all():
                raise BadData(f"the map of {sample.id} is not finite: kept maps end at {LARGEST:g}. Keep the model.")
            yield sample, map_

    def _predicted(
        self, fitted: model_folder.FittedDetector, samples: Sequence[Sample]
    ) -> Iterator[tuple[Sample, ImageResult]]:
        images = [InputImage(self.data.root / s.image, partial(self._read, s)) for s in samples]
        with feature_store.using(None):
            yield from zip(samples, results_of(fitted, images, None, self.device), strict=True)

    def _read(self, sample: Sample, intensity: IntensityRange | None) -> tuple[np.ndarray, str]:
        self.data.intensity = intensity
        return self.data.image(sample), ""

    def _kept(self, samples: Sequence[Sample], held_out: bool) -> Iterator[tuple[Sample, ImageResult]]:
        spec = self.source.result.spec
        paper_view = registry.card("detectors", spec.detector).get("paper_view", {})
        view = view_of(Protocol.parse(spec.protocol), paper_view, (_size(self.data.root / s.image) for s in samples))
        files = sorted((self.source.folder / ("held_out_maps" if held_out else "maps")).glob("*.npz"))
        ids = {file: artifacts.kept_ids(file) for file in files}
        wanted = {sample.id: sample for sample in samples}
        if missing := wanted.keys() - {name for names in ids.values() for name in names}:
            raise BadData(f"{self.source.folder} kept no map of {min(missing)}: is the data another than the run's?")
        for file in files:
            for name, map_ in zip(ids[file], artifacts.kept_maps(file), strict=True):
                if (sample := wanted.pop(name, None)) is not None:
                    path = self.data.root / sample.image
                    native = _size(path)
                    yield sample, ImageResult(path, 0.0, size=native, view_map=map_, view=view, native=native)


def _image(sample: Sample) -> str:
    """Return "OBJECT/SPLIT/STEM", as the archive names an image."""
    return sample.id.rpartition(".")[0]


def _size(path: Path) -> tuple[int, int]:
    """Return (height, width) of the stored image."""
    _, width, height = decoding.probe(path)
    return height, width
