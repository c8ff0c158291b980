"""Artifacts of a run beside its metrics: images with heat maps, anomaly maps, curves, losses, calibration."""

from __future__ import annotations

import csv
import json
import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from iadbe import system
from iadbe.curves.curve import Curve
from iadbe.data.images import Images, View, read_region_view, read_view
from iadbe.dataset import Dataset
from iadbe.errors import BadData
from iadbe.evaluation import calibration
from iadbe.evaluation.calibration import Calibration
from iadbe.evaluation.measure import DetectorOutput
from iadbe.evaluation.spilled_maps import Maps
from iadbe.files import image_io
from iadbe.progress import Report
from iadbe.types import Sample, Step

CURVES = "curves.json"
LOSSES = "losses.csv"
READ_HEADER: dict[tuple[int, int], Any] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
SAMPLED = 2**24  # values of all maps at most, from which their colour scale is taken
POINTS = 500  # of losses; longer histories keep at least half as many
RATES = np.concatenate([np.linspace(0, 0.3, 151), np.linspace(0.3, 1, 71)[1:]])  # of a PRO curve: papers look below 0.3


class Losses:
    """The training losses of a run: at most :data:`POINTS` values, each the mean over equally many steps."""

    def __init__(self) -> None:
        self.every = 1
        self.kept: list[tuple[int, float]] = []  # (number of the last step, mean loss)
        self._some: list[float] = []
        self._count = 0

    def __call__(self, report: Report) -> None:
        """Add a report's loss, if it has one."""
        if report.phase != "loss" or report.value is None or not math.isfinite(report.value):
            return
        self._count += 1
        self._some.append(report.value)
        if len(self._some) == self.every:
            self.kept.append((self._count, sum(self._some) / len(self._some)))
            self._some = []
        if len(self.kept) == POINTS:
            pairs = zip(self.kept[::2], self.kept[1::2], strict=True)
            self.kept = [(later, (a + b) / 2) for (_, a), (later, b) in pairs]
            self.every *= 2

    def state_dict(self) -> dict[str, Any]:
        """Return all that later losses are added to."""
        return {"every": self.every, "kept": self.kept, "some": self._some, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any], /) -> None:
        """Go on from the losses of training that was interrupted."""
        self.every, self._count = state_dict["every"], state_dict["count"]
        self.kept, self._some = [tuple(pair) for pair in state_dict["kept"]], list(state_dict["some"])

    def write(self, folder: Path) -> None:
        """Write the losses as CSV, if there are any."""
        if self.kept:
            with (folder / LOSSES).open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("step", "loss"))
                writer.writerows((n, f"{value:.6g}") for n, value in self.kept)


def keep_curves(folder: Path, name: str, curves: Iterable[Curve]) -> None:
    """Write a test's PRO curve, where a metric has computed it: overlap at :data:`RATES`."""
    file = folder / CURVES
    for curve in curves:
        if "pro" not in vars(curve):  # computing it only for this would be slow
            continue
        kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        overlap = np.zeros(RATES.size)
        for rate, height in curve.corners(curve.pro):
            shown = (rate[0] <= RATES) & (rate[-1] >= RATES)
            overlap[shown] = np.interp(RATES[shown], rate, height)
        kept[name] = {"overkill": RATES.round(4).tolist(), "overlap": overlap.round(5).tolist()}
        file.write_text(json.dumps(kept) + "\n", encoding="utf-8")


def discard(folder: Path) -> None:
    """Remove a staging folder that was not saved."""
    system.remove_tree(folder)


def keep_images(folder: Path, images: Images, evidence: DetectorOutput, count: int) -> None:
    """Write up to ``count`` test images, taking each kind of defect in turn, with map and mask, and an index."""
    if count <= 0 or not len(images):
        return
    folder.mkdir(parents=True, exist_ok=True)
    index_file = folder / "images.json"
    entries = json.loads(index_file.read_text(encoding="utf-8")) if index_file.is_file() else []
    low, high = map_range(evidence, images)
    for i in one_of_each_kind([e.sample for e in images.items], count):
        sample, n = images.items[i].sample, len(entries)
        image_io.write(folder / f"{n:02d}_input.jpg", read_view(images.dataset, sample, images.view)[0])
        if evidence.map is not None:
            grey = ((evidence.map[i] - low) / max(high - low, 1e-12)).clip(0, 1) * 255
            image_io.write(folder / f"{n:02d}_map.png", grey.round().astype(np.uint8))
        mask = images.dataset.mask(sample) if sample.is_anomaly else None
        region = read_region_view(images.dataset, sample, images.view)
        if region is not None:
            image_io.write(folder / f"{n:02d}_region.png", region.astype(np.uint8) * 255)
        if mask is not None:
            image_io.write(folder / f"{n:02d}_mask.png", images.view(mask).astype(np.uint8) * 255)
        entries.append(
            {
                "n": n,
                "sample": sample.id,
                "category": sample.category,
                "defect": sample.defect,
                "score": float(evidence.score[i]),
                "map": evidence.map is not None,
                "mask": mask is not None,
                **({} if region is None else {"region": True}),
            }
        )
    index_file.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def one_of_each_kind(samples: Sequence[Sample], count: int) -> list[int]:
    """Return positions of ``count`` images: one of each kind in turn, defects before good ones, in order."""
    kinds: dict[str, list[int]] = {}
    for i, sample in enumerate(samples):
        kinds.setdefault(sample.defect, []).append(i)
    ordered = sorted(kinds, key=lambda kind: (kind == "good", kind))
    turns = zip_longest(*(kinds[kind] for kind in ordered))
    return sorted([i for turn in turns for i in turn if i is not None][:count])


def keep_maps(folder: Path, name: str, samples: Sequence[Sample], maps: Maps | None) -> None:
    """Write all maps of one test, if there are any, as float16, with the images' ids: what ``np.load`` reads."""
    if maps is None or not len(maps):
        return
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / maps_file(name), "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("maps.npy", "w", force_zip64=True) as file:  # one map at a time
            header = {"descr": "<f2", "fortran_order": False, "shape": tuple(maps.shape)}
            np.lib.format.write_array_header_1_0(file, header)
            for map_ in maps:
                file.write(map_.astype("<f2").tobytes())
        with archive.open("ids.npy", "w") as file:
            np.lib.format.write_array(file, np.array([s.id for s in samples]), allow_pickle=False)


def kept_ids(file: Path) -> list[str]:
    """Return the ids of the images whose maps a file of :func:`keep_maps` holds, in order.

    Raises :class:`BadData` where the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open("ids.npy") as member:
            return [str(name) for name in np.lib.format.read_array(member, allow_pickle=False)]
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(file, error) from error


def kept_maps(file: Path) -> Iterator[np.ndarray]:
    """Yield the maps of a file of :func:`keep_maps`, (H, W) float32, in the order of its ids, one at a time.

    Raises :class:`BadData` where the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive, archive.open("maps.npy") as member:
            version = np.lib.format.read_magic(member)
            if version not in READ_HEADER:
                raise ValueError(f"a header of version {version}")
            shape, fortran, kind = READ_HEADER[version](member)
            if len(shape) != 3 or fortran or kind != np.float16:
                raise ValueError(f"it holds {kind} {shape} instead of maps in half precision")
            for _ in range(shape[0]):
                size = shape[1] * shape[2] * kind.itemsize
                if len(values := member.read(size)) < size:
                    raise EOFError("it ends within a map")
                yield np.frombuffer(values, kind).reshape(shape[1:]).astype(np.float32)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> BadData:
    return BadData(f"{file} is damaged ({error}). Remove the run's folder and run it again.")


def maps_file(name: str) -> str:
    """Return the name of the file of the maps of a step and a test, such as ``0-bottle.npz``."""
    return f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in name)}.npz"


def map_range(evidence: DetectorOutput, images: Images) -> tuple[float, float]:
    """Return the lowest and highest map value of the colour scale: median of good images, 99.9 % quantile of all.

    Pixels that do not count have no part in them.
    """
    if evidence.map is None or not len(images):
        return 0.0, 1.0
    good = np.array([not e.sample.is_anomaly for e in images.items])
    chosen = good if good.any() else np.ones(len(images), bool)
    pixels = math.prod(evidence.map.shape)
    every = 4
    while pixels > every**2 * SAMPLED:
        every *= 2
    # copies, because a part would keep its whole map in memory
    maps, regions = np.stack([np.array(map_[::every, ::every]) for map_ in evidence.map]), images.regions(every)
    if regions is None:
        return float(np.median(maps[chosen])), float(np.quantile(maps, 0.999))
    counts = regions | ~regions.any((1, 2), keepdims=True)  # a thin region may fall between
    return float(np.median(maps[chosen][counts[chosen]])), float(np.quantile(maps[counts], 0.999))


def training_digests(dataset: Dataset, steps: Iterable[Step], view: View) -> frozenset[str]:
    """Return the digests of all training images, whatever their labels; most are still in memory."""
    samples = {example.sample for step in steps for shard in step.shards for example in shard}
    return frozenset(read_view(dataset, sample, view)[1] for sample in samples)


def calibrated(evidence: DetectorOutput, images: Images) -> Calibration:
    """Calibrate on this test split: the threshold with the best F1, or the highest score of a good image."""
    truth = np.array([e.sample.is_anomaly for e in images.items], bool)
    low, high = map_range(evidence, images)
    score = evidence.score
    if not all(e.sample.is_labelled for e in images.items):
        return Calibration("the test images have no labels, so there is no threshold", None, None, low, high)
    if not len(score) or truth.all():
        return Calibration("no good test image, so there is no threshold", None, None, low, high)
    if not truth.any():
        how = "the highest score of a good test image; there were no defects to test on"
        threshold = float(score.max())
        return Calibration(how, threshold, None, low, high, calibration.scale_width(threshold, score))
    candidates = np.unique(score[truth])  # a threshold at a defect's score flags that defect
    f1 = [2 * (truth & (score >= t)).sum() / ((score >= t).sum() + truth.sum()) for t in candidates]
    best = float(candidates[int(np.argmax(f1))])
    below = score[score < best]
    threshold = (best + float(below.max())) / 2 if len(below) else best
    width = calibration.scale_width(threshold, score[~truth])
    return Calibration("best F1 on the test split of its own run: optimistic", threshold, None, low, high, width)
