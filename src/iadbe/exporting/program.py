"""A fitted detector as one function of images: view, detector, map, score, calibrated scale and verdict.

This is what every exported file computes. It takes (N, H, W, 3) uint8 RGB of any height and width (of a model of deep
images: their raw values, (N, H, W, C) float32) and returns

* ``score`` (N,) float32, the raw score;
* ``probability`` (N,) float32 in [0, 1], the calibrated display scale: 0.5 at the threshold, nan without a calibration;
* ``anomaly_map`` (N, H, W) float32, the raw map at the size of the images, only of detectors that localise;
* ``verdict`` (N,) int64: 0 good, 1 look at it (of models with a look threshold), 2 reject; -1 without a threshold, and
  of a score that is not finite.

A model that ignores parts of its images gives nan and -1 for images that its region does not fit.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.detector import Batch, Detector
from iadbe.evaluation.calibration import Calibration
from iadbe.exporting.deep_images import Levels
from iadbe.exporting.ignored_pixels import IgnoredPixels
from iadbe.exporting.view_matrices import ViewMatrices
from iadbe.running.model_folder import FittedDetector
from iadbe.runtime.deep_values import values_of

LOOK, REJECT, UNKNOWN = 1, 2, -1


class Program(nn.Module):
    """The function that an exported file computes."""

    def __init__(self, fitted: FittedDetector) -> None:
        super().__init__()
        self.detector: Detector = for_export(fitted.detector)
        self.calibration: Calibration = fitted.calibration
        self.ignored = None if fitted.region is None else IgnoredPixels(fitted.region)
        self.intensity = fitted.intensity
        self.levels = None if fitted.intensity is None else Levels(fitted.intensity)

    def input_of(self, levels: np.ndarray) -> Tensor:
        """Return images (N, H, W, 3) uint8 as the program takes them: of deep images, values that have these levels."""
        return torch.from_numpy(levels if self.intensity is None else values_of(levels, self.intensity))

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name for images (N, H, W, 3) uint8, or raw values (N, H, W, C) float32."""
        image = image if self.levels is None else self.levels(image)
        matrices = ViewMatrices(self.detector.view, image)
        counts, valid = matrices.counts(), None
        if self.ignored is not None:
            image, counts, valid = self.ignored(image, matrices)
        region = None if counts is None else counts.expand(image.shape[0], -1, -1)
        found = self.detector.predict(Batch(matrices.to_view(image) / 255, region=region))
        score = found.score if valid is None else torch.where(valid, found.score, torch.nan)
        outputs = {"score": score, "probability": self._probability(score)}
        if found.map is not None:
            outputs["anomaly_map"] = matrices.to_native(self._counted(found.map, region))
        outputs["verdict"] = self._verdict(score)
        return outputs

    def _counted(self, maps: Tensor, region: Tensor | None) -> Tensor:
        """Return maps (N, h, w) with the lowest value that counts where the model ignores pixels."""
        if self.ignored is None or region is None:
            return maps
        lowest = maps.masked_fill(~region, torch.inf).amin((1, 2), keepdim=True)
        return torch.where(region, maps, lowest)

    def _probability(self, score: Tensor) -> Tensor:
        """Return scores on the display scale: see :meth:`Calibration.scaled`."""
        threshold, width = self.calibration.threshold, self.calibration.width
        if threshold is None or width is None:
            return torch.full_like(score, torch.nan)
        distance = (score - threshold) / width
        return torch.where(distance < 0, 0.5 / (1 - distance.clamp(max=0)), 1 - 0.5 / (1 + distance.clamp(min=0)))

    def _verdict(self, score: Tensor) -> Tensor:
        if self.calibration.threshold is None:
            return torch.full_like(score, UNKNOWN, dtype=torch.int64)
        verdict = (score >= self.calibration.threshold).long() * REJECT
        if self.calibration.look_threshold is not None:
            verdict = torch.maximum(verdict, (score >= self.calibration.look_threshold).long() * LOOK)
        return torch.where(score.abs() < torch.inf, verdict, UNKNOWN)  # false for nan too: never good


def for_export(detector: Detector) -> Detector:
    """Return a copy of a detector which, like its parts, is replaced by its form for export (``for_export``)."""
    own = copy.deepcopy(detector).eval().for_export()
    parent: Any
    for parent in list(own.modules()):
        if getattr(parent, "inplace", False):
            parent.inplace = False  # in a graph both are the same, but the converter takes many times as long
        for name, part in parent.named_children():
            make: Callable[[], nn.Module] | None = getattr(part, "for_export", None)
            if make is not None:
                setattr(parent, name, make())
    return own
