"""A kernel density estimate of pooled deep features; the score is the negative log-density.

Paper: none; a baseline of anomalib (Akcay et al., ICIP 2022, 2202.08341). Global average pooling, 16 principal
    components, scaled so that the longest training vector has length 1. Gaussian kernels whose covariance is that of
    the data times Scott's factor squared (Scott, "Multivariate Density Estimation", 1992).
Differs:
    * The paper protocol has torchvision's weights (``resnet18.tv_in1k``). anomalib takes those that timm lists first,
      which were torchvision's until timm 0.8 and are ``a1_in1k`` since.
    * The score is the negative log-density, computed with log-sum-exp. The density itself underflows to 0 far from the
      data, so that all defects would tie.
    * There are fewer components where there are few images. A single image has no covariance, so its kernel has
      width 1 in feature space.
Numbers: MVTec AD, 256: image AUROC 76.2 with ResNet-18, 77.4 with WRN50-2 (anomalib's table).
    Measured here with the embedded network: bottle 98.7, transistor 80.3.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.region import average_pooled
from iadbe.layers.statistics.kde import KernelDensity
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16
MAX_POINTS = 40_000  # training images used, at most; of more a random subset


class DFKDE(Detector):
    """Deep feature kernel density estimation."""

    paper = "Akcay et al., Anomalib: A Deep Learning Library for Anomaly Detection, ICIP 2022, arXiv 2202.08341"
    year = 2022
    kind = "density"
    can = frozenset()
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet18.tv_in1k", "layer": 4}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = 4,
        weights: str = "auto",
        components: int = 16,
    ) -> None:
        """Set up an unfitted detector.

        Args:
            backbone: any timm model
            layer: the layer whose global average is the feature of an image
            weights: a file, auto or none
            components: maximum number of principal components
        """
        super().__init__()
        if components < 1:
            raise BadConfig(f"components is a number of dimensions, at least 1, not {components}.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.components = components
        self.density = KernelDensity()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        if len(train) > MAX_POINTS:
            train = train.subset(sorted(rng.choice(len(train), MAX_POINTS, replace=False)))
        pooled = []
        for batch in train.batches(BATCH):
            pooled.append(self._pooled(batch).cpu())
            progress.report("features", sum(map(len, pooled)), len(train))
        self.density.fit(torch.cat(pooled).to(train.device), self.components)

    def predict(self, batch: Batch) -> Prediction:
        return Prediction(self.density.negative_log_density(self._pooled(batch)))

    def _pooled(self, batch: Batch) -> Tensor:
        """Return the average of the layer over what counts: (B, D)."""
        return average_pooled(self.backbone(batch)[0], batch.region)
