"""Latency: the time for one image alone, with its spread, measured again while the machine is busy."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.networks import feature_store

IMAGES = 8  # timed one by one
REPEATS = 4  # measurements at most
SPREAD = 1.3  # ratio of the 90 % quantile to the 10 % quantile from which a measurement is repeated
SECONDS = 20.0  # after which none is repeated


class Latency(NamedTuple):
    """Milliseconds for one image, backbone included, decoding excluded; nan and () where there was no image."""

    median_ms: float = float("nan")
    range_ms: tuple[float, ...] = ()  # 10 % and 90 % quantile
    cpu_ms: float = float("nan")  # median CPU time, of all threads


def measure(detector: Detector, images: Images) -> Latency:
    """Time single images; of several measurements the one with the least spread counts."""
    few = images.subset(range(min(IMAGES, len(images))))
    if not len(few):
        return Latency()
    began = time.perf_counter()
    found: list[Latency] = []
    with feature_store.using(None), torch.no_grad():
        for batch in few.subset([0]).batches(1):
            _timed(detector, batch)  # warms up
        while not found or (_spread(found[-1]) > SPREAD and len(found) < REPEATS):
            pairs = np.array([_timed(detector, batch) for batch in few.batches(1)])
            low, median, high = np.quantile(pairs[:, 0], [0.1, 0.5, 0.9])
            cpu = float(np.median(pairs[:, 1]))
            found.append(Latency(round(float(median), 3), (round(float(low), 3), round(float(high), 3)), round(cpu, 3)))
            if time.perf_counter() - began > SECONDS:
                break
    return min(found, key=_spread)


def _spread(found: Latency) -> float:
    low, high = found.range_ms
    return high / max(low, 1e-9)


def _timed(detector: Detector, batch: Batch) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    detector.predict(batch).score.cpu()  # waits for a GPU
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)
