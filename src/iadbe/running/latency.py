"""Latency: the time for one image alone, with its spread.

It is measured again while times spread widely, and while other processes leave too few cores for this one. Of several
measurements the one under the least load counts, and among those that other processes did not disturb, the one with the
least spread.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from iadbe import system
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.networks import feature_store
from iadbe.running.tiled_detector import TiledDetector

IMAGES = 8  # timed one by one
REPEATS = 4  # measurements at most
SPREAD = 1.3  # ratio of the 90 % quantile to the 10 % quantile from which a measurement is repeated
CROWDED = 0.5  # cores that this process lacks because of others, from which a measurement is repeated
SECONDS = 20.0  # after which none is repeated


class Latency(NamedTuple):
    """Milliseconds for one image, backbone included, decoding excluded; nan and () where there was no image."""

    median_ms: float = float("nan")
    range_ms: tuple[float, ...] = ()  # 10 % and 90 % quantile
    cpu_ms: float = float("nan")  # CPU time of all threads, the mean: its clock ticks coarsely on some systems
    other_cores: float = float("nan")  # that other processes used meanwhile


def measure(detector: Detector, images: Images) -> Latency:
    """Time single images, several times if need be; see above."""
    few = images.subset(range(min(IMAGES, len(images))))
    few = few.in_bytes() if isinstance(detector, TiledDetector) else few
    if not len(few):
        return Latency()
    began = time.perf_counter()
    found: list[Latency] = []
    with feature_store.using(None), torch.no_grad():
        for batch in few.subset([0]).batches(1):
            _timed(detector, batch)  # warms up
        while not found or (_is_disturbed(found[-1]) and len(found) < REPEATS):
            others = system.other_cores()
            pairs = np.array([_timed(detector, batch) for batch in few.batches(1)])
            low, median, high = (round(float(q), 3) for q in np.quantile(pairs[:, 0], [0.1, 0.5, 0.9]))
            found.append(Latency(median, (low, high), round(float(pairs[:, 1].mean()), 3), round(others(), 2)))
            if time.perf_counter() - began > SECONDS:
                break
    return min(found, key=lambda one: (max(_lacking(one), CROWDED), _spread(one)))


def _is_disturbed(found: Latency) -> bool:
    return _spread(found) > SPREAD or _lacking(found) > CROWDED


def _lacking(found: Latency) -> float:
    """Return how many cores this process's threads lacked because of other processes."""
    return max(0.0, found.other_cores + torch.get_num_threads() - system.all_cores())


def _spread(found: Latency) -> float:
    low, high = found.range_ms
    return high / max(low, 1e-9)


def _timed(detector: Detector, batch: Batch) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    detector.predict(batch).score.cpu()  # waits for a GPU
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
