"""A discriminator learns adapted normal features against noisy ones; the score is its negated output.

Paper: Liu et al., "SimpleNet: A Simple Network for Image Anomaly Detection and Localization", CVPR 2023,
    arXiv:2303.15140. Patch features of two layers pass a linear adaptor. Gaussian noise of standard deviation 0.015 is
    added to its output. A two-layer discriminator D is trained with the hinge loss
    max(0, 0.5 - D(normal)) + max(0, 0.5 + D(noisy)). A position's score is -D, without noise. An image's score is the
    largest of its positions. The map is interpolated and smoothed.
Differs:
    * The last epoch counts. The authors' code keeps the best epoch on the test images.
    * Features are scaled to a root mean square of 0.1, so that the noise has the same effect with every backbone.
      ``rescale=False`` leaves them as they are.
    * Layers are concatenated as they are. ``embedding=1536`` pools each patch as in the paper.
    * Adam with weight decay 1e-5 for both parts, as in the text. The authors' code has AdamW with 1e-2 for the adaptor.
    * A step has 4 images. The authors' script uses 8.
Numbers: MVTec AD, WRN50-2, 329 cropped to 288: image AUROC 99.6, pixel AUROC 98.1 (best epoch on the test images).
    At the last epoch, image AUROC is about 98.5, by reruns reported to the authors.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.blocks.discriminator import Discriminator
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patch_embedding import patch_embedding
from iadbe.layers.features.region import image_score, rows_within, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

MARGIN = 0.5  # th, the truncation of the loss


class SimpleNet(Detector):
    """Feature adaptor and discriminator, trained with noise in feature space."""

    paper = "Liu et al., SimpleNet: A Simple Network for Image Anomaly Detection, CVPR 2023, arXiv 2303.15140"
    year = 2023
    kind = "synthetic anomalies"
    can = frozenset({"localise"})
    paper_view = {"resize": 329, "crop": 288}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "embedding": 1536, "rescale": False}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        embedding: int = 0,
        noise: float = 0.015,
        rescale: bool = True,
        width: int = 1024,
        epochs: int = 160,
        batch: int = 4,
        sigma: float = 4.0,
    ) -> None:
        """Choose features, noise and training.

        Args:
            backbone: any timm model
            layers: layers whose features are concatenated, on the grid of the first
            weights: a file, auto or none
            embedding: values per patch after adaptive average pooling (0: the layers as they are)
            noise: standard deviation σ of the Gaussian noise on adapted features
            rescale: scale features to a root mean square of 0.1
            width: units of the discriminator's hidden layer
            epochs: passes over the training images
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(width, epochs, batch) < 1 or noise <= 0:
            raise BadConfig(f"width {width}, epochs {epochs}, batch {batch} and noise {noise} must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.embedding, self.noise, self.rescale = embedding, noise, rescale
        self.width, self.epochs, self.batch, self.sigma = width, epochs, batch, sigma
        self._initialise()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self._initialise()
        self.to(train.device)
        features = FeatureCache(lambda batch: [self._features(batch)])
        if self.rescale:
            self.level.fit(within(features(batch)[0], batch.region) for batch in train.batches(16))
        source = generator(rng, train.device)
        groups = [{"params": self.adaptor.parameters(), "lr": 1e-4}, {"params": self.discriminator.parameters()}]
        optimizer = torch.optim.Adam(groups, 2e-4, weight_decay=1e-5)
        self.discriminator.train()
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer, source)):
            normal = self._adapted(*features(batch), batch.region)
            noisy = normal + self.noise * torch.randn(normal.shape, generator=source, device=normal.device)
            step(optimizer, hinge(*self.discriminator(torch.cat([normal, noisy])).chunk(2)))
        self.discriminator.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.discriminator.eval()
        features = self._features(batch)
        scores = -self.discriminator(self._adapted(features)).view(-1, *features.shape[-2:])
        return Prediction(
            image_score(scores, batch.region),
            upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region),
        )

    def _initialise(self) -> None:
        """Make untrained layers, with weights from torch's global generator."""
        dim = self.embedding or sum(self.backbone.channels)
        self.adaptor = nn.Linear(dim, dim)
        nn.init.xavier_normal_(self.adaptor.weight)
        self.discriminator = Discriminator(dim, self.width)
        self.level = Rescale()

    def _features(self, batch: Batch) -> Tensor:
        """Return the patch features before the adaptor: (B, D, h, w)."""
        return patch_embedding(self.backbone(batch), self.embedding)

    def _adapted(self, features: Tensor, region: Tensor | None = None) -> Tensor:
        """Return the adapted features (N, D) of the positions of patch features (B, D, h, w) that count."""
        return self.adaptor(self.level(rows_within(features, region)))


def hinge(normal: Tensor, noisy: Tensor) -> Tensor:
    """Return the truncated L1 loss () of outputs (N,) for normal and for noisy features."""
    return (MARGIN - normal).clamp(min=0).mean() + (MARGIN + noisy).clamp(min=0).mean()
