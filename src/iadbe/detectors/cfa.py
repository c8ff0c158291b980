"""Features adapted to a memory bank of hypersphere centres; the score is the softmin-weighted distance to the nearest.

Paper: Lee et al., "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization", IEEE
    Access 2022, 2206.04325. A patch descriptor, a 1 x 1 convolution that also gets the coordinates (CoordConv), is
    trained. Its loss attracts a normal patch to its K nearest centres until it is within radius r, and repels it from
    the J next ones until it is outside by the margin α. The radius is trained as well.
Differs:
    * A centre is the mean of one position over the training images, as the untrained descriptor sees them. So does
      the authors' code; the paper moves centres image by image towards the nearest patches.
    * The last epoch counts. The authors take the best epoch on the test images, separately for each metric.
    * The last incomplete batch is used for training, too.
    * Features are rescaled to a root mean square of 0.2, about a ResNet's, for which margin and learning rate were
      chosen. The authors only divide EfficientNet's features by their number of channels, and give it a descriptor of
      twice as many; ``rescale=False`` leaves all as they are.
    * A ResNet's layers end with their ReLU. In the authors' code a hundredth of negative values is left (leaky ReLU).
    * Images are resized bilinearly. The authors resize with Lanczos.
    * By default layer 1 is left out, so that a sixteenth of the distances is computed. The paper uses it.
Numbers: MVTec AD, WRN50-2, 224: image AUROC 99.5, pixel AUROC 98.5, best of 30 epochs on the test images (paper);
    95.6, 98.3 with early stopping (anomalib).
    Measured here with ResNet-18 at 256, layers 2 and 3, 3 epochs: bottle 100.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector, generator
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.patches import concatenated, flattened, neighbourhood_mean
from iadbe.layers.features.region import image_score, masked, rows_within, within
from iadbe.layers.features.rescale import Rescale
from iadbe.layers.memory_bank.kmeans import kmeans
from iadbe.layers.memory_bank.nearest_neighbours import CachedIndex
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

INVERSE_NU = 1000  # 1 / ν, the factor of the loss


class CFA(Detector):
    """Coupled-hypersphere-based feature adaptation."""

    paper = "Lee et al., CFA: Coupled-Hypersphere-Based Feature Adaptation, IEEE Access 2022, arXiv 2206.04325"
    year = 2022
    kind = "memory bank"
    can = frozenset({"localise"})
    paper_view = {"resize": 256, "crop": 224}
    added = {"rescale": True}
    renamed_tensors = {"describe": "descriptor"}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "layers": [1, 2, 3], "rescale": False}

    centres: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        gamma_c: int = 1,
        gamma_d: int = 1,
        attract: int = 3,
        repel: int = 3,
        radius: float = 1e-5,
        margin: float = 0.1,
        rescale: bool = True,
        epochs: int = 30,
        learning_rate: float = 1e-3,
        batch: int = 4,
        sigma: float = 4.0,
    ) -> None:
        """Set up an unfitted detector.

        Args:
            backbone: any timm model
            layers: layers whose features are stacked, on the grid of the first
            weights: a file, auto or none
            gamma_c: γc, positions per centre; above 1, centres are clustered by k-means
            gamma_d: γd, factor by which the descriptor reduces the number of channels
            attract: K, number of nearest centres that attract a patch
            repel: J, number of next nearest centres that repel it
            radius: initial radius r of the hyperspheres
            margin: α, margin of the repulsion, as a squared distance
            rescale: whether features are rescaled to a root mean square of 0.2
            epochs: number of training epochs
            learning_rate: of AdamW with amsgrad and weight decay 5e-4
            batch: images per step
            sigma: standard deviation of the Gaussian blur of the map, in pixels
        """
        super().__init__()
        if min(gamma_c, gamma_d, attract, epochs, batch) < 1 or repel < 0 or min(learning_rate, radius) <= 0:
            raise BadConfig("gamma_c, gamma_d, attract, epochs, batch, learning_rate and radius must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.level = Rescale(0.2)
        self.gamma_c, self.attract, self.repel, self.initial, self.margin = gamma_c, attract, repel, radius, margin
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.rescale = rescale
        self.width = max(1, sum(self.backbone.channels) // gamma_d)
        self.descriptor = self._new_descriptor()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.register_buffer("centres", torch.empty(0))  # (M, width)
        self._index = CachedIndex()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.descriptor = self._new_descriptor().to(train.device)
        self.radius = nn.Parameter(torch.tensor(self.initial, device=train.device))
        cached = FeatureCache(lambda batch: [self._stacked(batch)])
        self.level = Rescale(0.2).to(train.device)
        if self.rescale:
            self.level.fit(within(cached(batch)[0], batch.region) for batch in train.batches(16))
        self.centres = self._initial_centres(train, cached, rng)
        trained = [*self.descriptor.parameters(), self.radius]
        optimizer = torch.optim.AdamW(trained, self.learning_rate, weight_decay=5e-4, amsgrad=True)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer,)):
            step(optimizer, self._loss(rows_within(self._descriptors(cached(batch)[0]), batch.region)))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self._descriptors(self._stacked(batch))
        count = min(self.attract, len(self.centres))
        distance, _ = self._index(self.centres).nearest(flattened(features), count)  # (P, K)
        softmin = (-distance).softmax(1)[:, 0]  # weight of the nearest of K centres
        scores = (softmin * distance[:, 0]).view(-1, *features.shape[2:])
        map_ = upsampled(scores, batch.image.shape[-2:], self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def _loss(self, rows: Tensor) -> Tensor:
        """Return the loss (), attraction plus repulsion of patch descriptors (P, width).

        The nearest centres are found without gradients, so that only their distances are kept for the backward pass.
        """
        count = min(self.attract + self.repel, len(self.centres))
        _, indices = self._index(self.centres).nearest(rows, count)
        squares = torch.stack([(rows - self.centres[index]).square().sum(1) for index in indices.T], 1)  # (P, K + J)
        attracted, repelled = squares[:, : self.attract], squares[:, self.attract :]
        loss = (attracted - self.radius**2).clamp(min=0).mean()
        if repelled.shape[1]:
            loss = loss + (self.radius**2 - repelled - self.margin).clamp(min=0).mean()
        return INVERSE_NU * loss

    @torch.no_grad()
    def _initial_centres(self, train: Images, cached: FeatureCache, rng: np.random.Generator) -> Tensor:
        """Return the centres (M, width): the mean of each position, clustered by k-means if ``gamma_c`` is above 1.

        The mean is over the images in which the position counts; without any it makes no centre.
        """
        sums, seen, done = torch.zeros((), device=train.device), torch.zeros((), device=train.device), 0
        for batch in train.batches(16):
            descriptors = self._descriptors(cached(batch)[0])
            sums = sums + masked(descriptors, batch.region).sum(0)
            seen = seen + masked(torch.ones_like(descriptors[:, 0]), batch.region).sum(0)
            done += len(batch)
            progress.report("centres", done, len(train))
        positions = flattened((sums / seen)[None])
        positions = positions if seen.all() else positions[seen.flatten() > 0]
        if self.gamma_c == 1:
            return positions
        return kmeans(positions, max(1, len(positions) // self.gamma_c), generator(rng))

    def _new_descriptor(self) -> nn.Conv2d:
        return nn.Conv2d(sum(self.backbone.channels) + 2, self.width, 1)

    def _stacked(self, batch: Batch) -> Tensor:
        """Return the backbone's patch features, layers concatenated: (B, D, h, w)."""
        return concatenated([neighbourhood_mean(f) for f in self.backbone(batch)], "bilinear")

    def _descriptors(self, features: Tensor) -> Tensor:
        """Return the descriptor of each patch: (B, width, h, w)."""
        count, _, height, width = features.shape
        y = torch.linspace(-1, 1, height, device=features.device).view(1, 1, -1, 1).expand(count, 1, height, width)
        x = torch.linspace(-1, 1, width, device=features.device).expand(count, 1, height, width)
        return self.descriptor(torch.cat([self.level(features), y, x], 1))
