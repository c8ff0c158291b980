"""A linear subspace (PCA) of normal deep features; the score is the feature reconstruction error.

Paper: Ahuja et al., "Probabilistic Modeling of Deep Features for Out-of-Distribution and Adversarial Detection",
    2019, 1909.11786. A PCA keeps 97 % of the variance. The score is the reconstruction error (``fre``) or the negative
    log-likelihood of a Gaussian in the subspace (``nll``).
Differs:
    * The paper protocol has torchvision's weights (``resnet50.tv_in1k``). anomalib takes those that timm lists first,
      which are ``a1_in1k`` since timm 0.5.
    * There is one class, since all training images are normal.
    * With fewer images than values, the axes come from the (N, N) Gram matrix. The result is the same.
    * Where ``pool`` does not divide the grid, the pools overlap. anomalib leaves out the border.
Numbers: MVTec AD, 256: image AUROC 94.3 with WRN50-2 and 93.6 with ResNet-18, ``fre`` (anomalib's table). Measured
    here with ResNet-18, pool 2: bottle 100, transistor 94.2 (with the embedded network 100 and 97.0).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import masked
from iadbe.layers.statistics.pca import PrincipalComponents, pca
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16


class DFM(Detector):
    """Deep feature modelling: PCA of one layer's features."""

    paper = "Ahuja et al., Probabilistic Modeling of Deep Features for Out-of-Distribution Detection, arXiv 1909.11786"
    year = 2019
    kind = "linear subspace"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet50.tv_in1k", "layer": 3, "pool": 4}

    mean: Tensor
    axes: Tensor
    variance: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = 3,
        weights: str = "auto",
        pool: int = 2,
        variance: float = 0.97,
        score: Literal["fre", "nll"] = "fre",
    ) -> None:
        """Set up an unfitted detector.

        Args:
            backbone: any timm model
            layer: the layer whose features are modelled
            weights: a file, auto or none
            pool: side of the average pooling of the layer, in positions
            variance: share of the variance that the PCA keeps, above 0 and up to 1
            score: fre, the squared reconstruction error, or nll, the negative log-likelihood in the subspace (no map)
        """
        super().__init__()
        if not 0 < variance <= 1:
            raise BadConfig(f"variance is a share above 0 and up to 1, not {variance}.")
        if pool < 1:
            raise BadConfig(f"pool is a number of positions, at least 1, not {pool}.")
        if score not in ("fre", "nll"):
            raise BadConfig(f"score is fre or nll, not {score!r}.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.pool, self.share, self.kind_of_score = pool, variance, score
        self.register_buffer("mean", torch.empty(0))  # (D,)
        self.register_buffer("axes", torch.empty(0, 0))  # (K, D)
        self.register_buffer("variance", torch.empty(0))  # (K,)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        rows, done = torch.empty(0), 0
        for batch in train.batches(BATCH):
            features = self._pooled(batch).flatten(1).cpu()  # (B, D)
            rows = rows if done else torch.empty(len(train), features.shape[1])
            rows[done : done + len(features)] = features
            done += len(features)
            progress.report("features", done, len(train))
        fitted = pca(rows, self.share)
        if self.kind_of_score == "nll" and not len(fitted.axes):
            raise BadConfig("DFM's nll needs at least two different training images; score=fre needs only one.")
        self.mean, self.axes, self.variance = (t.to(train.device) for t in fitted)

    def predict(self, batch: Batch) -> Prediction:
        features = self._pooled(batch)  # (B, C, h, w)
        subspace = PrincipalComponents(self.mean, self.axes, self.variance)
        if self.kind_of_score == "nll":
            squared = subspace.project(features.flatten(1)).square() / self.variance  # (B, K)
            normaliser = self.variance.log().sum() + len(self.variance) * math.log(2 * math.pi)
            return Prediction((squared.sum(1) + normaliser) / 2)
        error = subspace.residual(features.flatten(1)).square().view_as(features).sum(1)  # (B, h, w)
        return Prediction(
            masked(error, batch.region).sum((1, 2)),
            upsampled(error, batch.image.shape[-2:], sigma=0, region=batch.region),
        )

    def _pooled(self, batch: Batch) -> Tensor:
        """Return the average-pooled features of the layer, zeros where positions do not count: (B, C, h, w)."""
        features = masked(self.backbone(batch)[0], batch.region)
        height, width = (max(1, round(side / self.pool)) for side in features.shape[-2:])
        return F.adaptive_avg_pool2d(features, (height, width))
