"""The values that packages exchange: frozen dataclasses, without computation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from enum import Enum
from typing import Any, NamedTuple

UNLABELLED = "unlabelled"  # defect of a test image whose label is not published
UNLABELLED_NOTE = "the labels of the test images are not published, so there are scores and no metrics."


@dataclass(frozen=True, slots=True)
class Sample:
    """One image of a dataset, known by everything but its pixels."""

    id: str  # unique within its dataset, the same on every machine
    category: str
    split: str  # "train", "val" or "test"
    defect: str  # "good", the kind of defect, or UNLABELLED
    image: str  # path relative to the dataset's root, with forward slashes
    mask: str | None = None  # path of the ground truth, likewise; None: there is none
    depth: str | None = None  # path of the depth map or point cloud, likewise
    transform: str = ""  # how it is altered before it is seen, such as "rotation=90": see iadbe.data.transforms
    group: str = ""  # images of one group (one part, lot or scene) are dependent; empty: independent of all others

    @property
    def is_anomaly(self) -> bool:
        """Return whether the image is known to show a defect."""
        return self.defect not in ("good", UNLABELLED)

    @property
    def is_labelled(self) -> bool:
        """Return whether it is known if the image shows a defect."""
        return self.defect != UNLABELLED

    @property
    def group_id(self) -> str:
        """The group, or the id of an image that is independent of all others."""
        return self.group or self.id


@dataclass(frozen=True, slots=True)
class ChannelProjection:
    """How the channels of a multi-channel image become one (grey) or three (RGB): a linear map of each pixel."""

    weights: tuple[tuple[float, ...], ...]  # one row for grey, three for RGB; in a row, one weight per channel
    offset: tuple[float, ...]  # added after the weights, one per row
    source: str = ""  # how it was found, for people


@dataclass(frozen=True, slots=True)
class IntensityRange:
    """The values of deep images (more than 8 bits per sample) that become black (0) and white (255).

    It is declared with the data or learnt from normal training images, kept with the fitted detector, and the same for
    every image that the detector sees. Of multi-channel images the channels are projected first.
    """

    low: float = 0.0
    high: float = 65535.0
    source: str = ""  # how it was found, for people
    projection: ChannelProjection | None = None  # None: images are grey or RGB


class TrainingLabel(Enum):
    """The label of a training image. In the setting noisy, some labels are wrong on purpose."""

    NORMAL = "normal"
    ANOMALOUS = "anomalous"
    MASKED = "masked"  # anomalous, with a mask of the defect


class TrainingImage(NamedTuple):
    """A training image with its label."""

    sample: Sample
    label: TrainingLabel = TrainingLabel.NORMAL


@dataclass(frozen=True, slots=True)
class Step:
    """Fit on ``shards``, then score each of ``tests``.

    One shard is ordinary training. Several are federated: each client trains a copy on its shard, and after each of
    ``rounds`` rounds the copies are merged. No shard is zero-shot.
    """

    shards: tuple[tuple[TrainingImage, ...], ...]
    tests: Mapping[str, tuple[Sample, ...]]
    rounds: int = 1  # of federated training; banks and statistics need one only
    aggregate: str = "mean"  # of the clients' parameters after a round: "mean" or "median"
    proximal: float = 0.0  # FedProx's pull of a client's parameters towards those at the round's start
    held_out: tuple[Sample, ...] = ()  # good images that the setting takes out of training, for thresholds


@dataclass(frozen=True, slots=True)
class RunSpec:
    """Everything that decides a run's numbers: equal specs give equal results.

    ``place`` is the exception: it says where on this machine the data and weight files lie, and has no part in
    the run's identity. Parameters hold all defaults; a file among them is written ``file:NAME#SHA256``.
    """

    detector: str
    dataset: str
    setting: str
    task: str
    seed: int = 0
    protocol: str = "uniform"  # the name of a :class:`iadbe.protocol.Protocol`
    detector_params: Mapping[str, Any] = field(default_factory=dict)
    dataset_params: Mapping[str, Any] = field(default_factory=dict)
    setting_params: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[str, ...] = ()  # row names, for example "image_auroc"
    data: str = ""  # digest of the dataset's index: names, splits, sizes of files
    versions: Mapping[str, int] = field(default_factory=dict)  # of detector, dataset, setting, metrics
    place: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: devices, limits, and what is kept. No option changes a number."""

    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:1", "mps"
    engine: str = "torch"  # inference engine of frozen networks; see :mod:`iadbe.networks.engines`
    federation: str = "local"  # where federated clients train: "local" or "flower"; see :mod:`iadbe.running.flower`
    threads: int = 0  # of one run; 0: all cores, shared among the runs at a time
    features: str = ""  # folder of the feature store; "": the user's cache; "off": none
    feature_budget: int = 20 * 2**30  # bytes
    keep_model: bool = False
    keep_maps: bool = False  # float16, at the size of the view
    images: int = 12  # how many test images are kept with heat map and mask, for the report
    checkpoints: float = 45.0  # seconds of training between two checkpoints, from which it can go on; inf: none
    time_limit: float | None = None  # seconds of wall time for one run
    memory_limit: int | None = None  # bytes of resident memory for one run
    command: str = ""  # what the user typed, kept with the result
    pictures: InitVar[int | None] = None  # the name of ``images`` in version 0.1

    def __post_init__(self, pictures: int | None) -> None:
        if pictures is not None:
            object.__setattr__(self, "images", pictures)


class Prediction(NamedTuple):
    """Scores of a batch, as float32 tensors: finite, and higher means more anomalous."""

    score: Any  # (B,)
    map: Any = None  # (B, H, W) at the size of the batch, or None if the detector does not localise


class Row(NamedTuple):
    """One metric of one run: tables, plots and the dashboard read these."""

    step: int
    test: str
    metric: str
    value: float  # nan where the metric is not defined


class Score(NamedTuple):
    """The score of one test image. It is stored, so that a new image metric needs no new run."""

    step: int
    test: str
    sample: str  # Sample.id
    category: str
    defect: str
    score: float
    group: str = ""  # Sample.group


@dataclass(frozen=True, slots=True)
class RunResult:
    """The outcome of a run: its rows, or the error that ended it."""

    spec: RunSpec
    rows: tuple[Row, ...] = ()
    error: str = ""
    transient: bool = False  # the error belongs to this machine (no GPU, extra or weights), so it is never stored
    scores: tuple[Score, ...] = ()
    notes: tuple[str, ...] = ()  # caveats of the numbers, one sentence each
    seconds: Mapping[str, float] = field(default_factory=dict)  # fit, predict, metrics, total
    cpu_seconds: Mapping[str, float] = field(default_factory=dict)  # the same, of all threads
    latency_ms: float = float("nan")  # one image at a time, backbone included, decoding excluded; median
    latency_range_ms: tuple[float, ...] = ()  # lower and upper end of the repeated measurements; empty: not known
    steps: Mapping[str, int] = field(default_factory=dict)  # of training: done, planned; empty: there is no training
    images: Mapping[str, int] = field(default_factory=dict)  # in the data, by tested category; empty: not known
    data_name: str = ""  # of the data's folder, for titles
    memory: Mapping[str, int] = field(default_factory=dict)  # bytes: peak (of the process), model, cuda
    features: Mapping[str, int] = field(default_factory=dict)  # images through the backbone: computed, stored
    weights: str = ""  # fingerprint and source of the backbone's weights
    environment: Mapping[str, Any] = field(default_factory=dict)  # versions, machine, device, threads, date, command
