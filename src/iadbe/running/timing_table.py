"""Runtime and memory of a fitted detector, as the protocol of MVTec AD 2 measures them.

Source: ``measure_runtime_and_memory.py`` of MVTec Software GmbH (2025): random images of three sizes, one at a time;
1000 iterations after 1000 that warm up on a GPU, 1000 without a warm-up on a CPU; mean, standard deviation, minimum and
maximum of the seconds from the image to its map on the CPU; peak of the memory reserved on the GPU in MiB.

Differs: the time is that of a whole prediction, from an 8-bit image in memory to the map at the image's own size. That
includes resizing to the detector's view and back, because a fitted detector has one view.
"""

from __future__ import annotations

import csv
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from iadbe import progress
from iadbe.errors import BadConfig, IadbeError
from iadbe.files.input_images import InputImage
from iadbe.networks import feature_store
from iadbe.running.inference import results_of
from iadbe.running.model_folder import FittedDetector

SIZES = ((256, 256), (512, 512), (1024, 1224))  # height, width
REPEATS = 1000
WARMUP = {"cuda": 1000}  # by type of device; 0 on others
MEBIBYTE = 2**20


class Timing(NamedTuple):
    """A row of the table: seconds, and MiB; nan where the prediction failed or the memory is not measured."""

    image_height: int
    image_width: int
    runtime_mean: float
    runtime_std: float
    runtime_min: float
    runtime_max: float
    peak_memory: float


def measure(
    fitted: FittedDetector,
    device: torch.device,
    sizes: Sequence[tuple[int, int]] = SIZES,
    warmup: int | None = None,
    repeats: int = REPEATS,
) -> list[Timing]:
    """Time single predictions of random images; ``warmup``: iterations that do not count, by default by device."""
    warmup = WARMUP.get(device.type, 0) if warmup is None else warmup
    if repeats < 1 or warmup < 0:
        raise BadConfig(f"timings need at least one repeat and no negative warm-up, not {repeats} and {warmup}.")
    rows = []
    for place, size in enumerate(sizes):
        memory = float("nan")
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        try:
            seconds = _seconds(fitted, device, size, warmup + repeats, place * (warmup + repeats), len(sizes))[warmup:]
        except (RuntimeError, IadbeError) as error:  # such as too little memory for the largest size
            progress.note(f"no timings at {size[0]} x {size[1]}: {error}")
            seconds = [float("nan")]
        if device.type == "cuda":
            memory = torch.cuda.memory_stats(device)["reserved_bytes.all.peak"] / MEBIBYTE
        mean, deviation, least, most = (float(f(seconds)) for f in (np.mean, np.std, np.min, np.max))
        rows.append(Timing(size[0], size[1], mean, deviation, least, most, memory))
    return rows


def _seconds(
    fitted: FittedDetector, device: torch.device, size: tuple[int, int], count: int, before: int, of: int
) -> list[float]:
    rng = np.random.default_rng(0)
    found = []
    with feature_store.using(None):
        for number in range(count):
            pixels = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
            image = InputImage(Path("random"), lambda _, pixels=pixels: (pixels, ""))  # type: ignore[misc]
            began = time.perf_counter()
            for result in results_of(fitted, [image], None, device):
                _ = result.map
            found.append(time.perf_counter() - began)
            progress.report("timing", before + number + 1, of * count)
    return found


def write(path: Path, rows: Sequence[Timing]) -> None:
    """Write the table as CSV, with the columns of the server's utilities."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Timing._fields)
        writer.writerows(["" if value != value else f"{value:.6g}" for value in row] for row in rows)
