"""Score a set of images with a detector, and check what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.dataset import Dataset
from iadbe.detector import Detector
from iadbe.errors import BadDetector
from iadbe.evaluation.measure import DetectorOutput
from iadbe.evaluation.spilled_maps import Maps, allocate, put
from iadbe.running.tiled_detector import TiledDetector
from iadbe.types import TrainingImage

BATCH = 16  # images scored at a time


def images_for(
    detector: Detector, dataset: Dataset, examples: Sequence[TrainingImage], device: str | torch.device = "cpu"
) -> Images:
    """Return images in the detector's view, with depth where it needs depth."""
    return Images(dataset, examples, detector.view, device, depth="depth" in detector.needs)


def predict(detector: Detector, images: Images, folder: Path | None = None) -> DetectorOutput:
    """Score every image; check what the detector returns. Maps that are too many for memory are kept in ``folder``."""
    scores, done = np.empty(len(images), np.float32), 0  # one block: see return_memory
    maps: Maps | None = None
    tiled = isinstance(detector, TiledDetector)
    for batch in images.in_bytes().batches(1) if tiled else images.batches(BATCH):  # tiles are a batch already
        with torch.no_grad():
            prediction = detector.predict(batch)
        score, map_ = _checked(detector, prediction.score, prediction.map, batch)
        scores[done : done + len(score)] = score
        if map_ is not None:
            maps = allocate((len(images), *map_.shape[1:]), folder) if maps is None else maps
            put(maps, done, map_)
        done += len(score)
        progress.report("predict", done, len(images))
    return DetectorOutput(scores, maps)


def _checked(detector: Detector, score: Any, map_: Any, batch: Batch) -> tuple[np.ndarray, np.ndarray | None]:
    name = type(detector).__name__
    score = np.asarray(score.detach().float().cpu())
    if score.shape != (len(batch),) or not np.isfinite(score).all():
        raise BadDetector(f"{name} must give {len(batch)} finite scores, not {score.shape}: {score.ravel()[:4]}.")
    if map_ is None:
        return score, None
    map_ = np.asarray(map_.detach().float().cpu())
    if map_.shape != (len(batch), *batch.image.shape[-2:]) or not np.isfinite(map_).all():
        raise BadDetector(f"{name} must give finite maps of the batch's size, not {map_.shape}.")
    return score, map_
