"""A tied linear autoencoder of one layer's features; the score is the feature reconstruction error.

Paper: Ndiour et al., "FRE: A Fast Method for Anomaly Detection and Segmentation", BMVC 2023. A weight matrix W
    encodes and its transpose decodes, each with a bias: x' = Wᵀ(W x + b) + c. It is trained with the mean squared error
    in place of a PCA. The map is the squared error summed over channels; the image score is its sum.
Differs:
    * Features are first multiplied by one number that gives them a root mean square of 0.1, so that the learning rate
      suits every backbone (``rescale=False``: they are not).
    * Where ``pool`` does not divide the grid, the pools overlap.
    * The paper protocol has the weights that timm's ``resnet50`` means in anomalib (``a1_in1k``), which the numbers
      below were made with.
    * 220 epochs of Adam are those of the authors' implementation in anomalib.
Numbers: MVTec AD, 256: image AUROC 93.3 with ResNet-50 and 94.7 with WRN50-2 (anomalib's table).
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import masked
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class FRE(Detector):
    """Feature reconstruction error of a tied linear autoencoder."""

    paper = "Ndiour et al., FRE: A Fast Method for Anomaly Detection and Segmentation, BMVC 2023"
    year = 2023
    kind = "linear subspace"
    can = frozenset({"localise"})
    renamed_tensors = {"matrix": "weight", "inner": "encoder_bias", "outer": "decoder_bias"}
    paper_view = {"resize": 256}
    paper_params = {"backbone": "resnet50.a1_in1k", "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layer: int = 3,
        weights: str = "auto",
        pool: int = 2,
        latent: int = 220,
        rescale: bool = True,
        epochs: int = 220,
        learning_rate: float = 1e-3,
        batch: int = 32,
    ) -> None:
        """Set up an untrained detector.

        Args:
            backbone: any timm model
            layer: the layer whose features are reconstructed
            weights: a file, auto or none
            pool: side of the average pooling of the layer, in positions
            latent: dimension of the latent code
            rescale: rescale features to a root mean square of 0.1
            epochs: number of training epochs
            learning_rate: of Adam
            batch: images per step
        """
        super().__init__()
        if min(pool, latent, epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig("pool, latent, epochs, batch and learning_rate must all be above 0.")
        self.backbone = Backbone(backbone, (layer,), weights)
        self.pool, self.latent, self.rescale = pool, latent, rescale
        self.epochs, self.learning_rate, self.batch = epochs, learning_rate, batch
        self.level = Rescale()
        self._reset(0)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        cached = FeatureCache(lambda batch: [self._pooled(batch)])
        self.level = Rescale().to(train.device)
        if self.rescale:
            self.level.fit(cached(batch)[0] for batch in train.batches(16))
        with seeded(rng):
            self._reset(cached(next(train.batches(1)))[0].numel())
        self.to(train.device)
        optimizer = torch.optim.Adam([self.weight, self.encoder_bias, self.decoder_bias], self.learning_rate)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer,)):
            vectors = self.level(cached(batch)[0]).flatten(1)
            step(optimizer, F.mse_loss(self._reconstructed(vectors), vectors))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self.level(self._pooled(batch))  # (B, C, h, w)
        reconstruction = self._reconstructed(features.flatten(1)).view_as(features)
        error = (features - reconstruction).square().sum(1)  # (B, h, w)
        return Prediction(
            masked(error, batch.region).sum((1, 2)),
            upsampled(error, batch.image.shape[-2:], sigma=0, region=batch.region),
        )

    def _reset(self, dim: int) -> None:
        """Make an untrained autoencoder of vectors of ``dim`` values; torch's generator draws its weights."""
        self.weight = nn.Parameter(torch.empty(self.latent, dim))
        self.encoder_bias, self.decoder_bias = nn.Parameter(torch.zeros(self.latent)), nn.Parameter(torch.zeros(dim))
        if dim:
            nn.init.xavier_uniform_(self.weight)

    def _reconstructed(self, vectors: Tensor) -> Tensor:
        """Encode and decode vectors (N, D)."""
        return F.linear(F.linear(vectors, self.weight, self.encoder_bias), self.weight.T, self.decoder_bias)

    def _pooled(self, batch: Batch) -> Tensor:
        """Return the average-pooled features of the layer, zeros where positions do not count: (B, C, h, w)."""
        features = masked(self.backbone(batch)[0], batch.region)
        height, width = (max(1, round(side / self.pool)) for side in features.shape[-2:])
        return F.adaptive_avg_pool2d(features, (height, width))
