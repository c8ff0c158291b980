"""A detector that needs depth: distance to the mean height of each pixel. It stands in for real ones in tests."""

from __future__ import annotations

import torch
from torch import Tensor

from iadbe.detector import Detector
from iadbe.types import Prediction


class Heights(Detector):
    """Mean height of the training images."""

    kind = "baseline"
    needs = frozenset({"image", "depth"})
    can = frozenset({"localise"})

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.register_buffer("mean", torch.empty(0))  # (H, W)

    def fit(self, train, rng):
        self.mean = torch.cat([batch.depth[:, 0] for batch in train.normal().batches()]).nanmean(0).nan_to_num()

    def predict(self, batch):
        map_ = (batch.depth[:, 0] - self.mean).abs().nan_to_num()
        return Prediction(map_.amax((1, 2)), map_)
