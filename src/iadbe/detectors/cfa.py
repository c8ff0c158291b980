"""Features are bent until normal patches lie on small spheres around remembered centres; what stays outside is new.

Paper: Lee et al., "CFA: Coupled-Hypersphere-Based Feature Adaptation for Target-Oriented Anomaly Localization", IEEE
    Access 2022, 2206.04325. A 1 x 1 convolution that also sees the coordinates describes each patch. Its three
    nearest centres attract a normal patch as long as it is outside the radius, the next three repel it as long as it
    is well inside. The radius is learnt with it.
Differs: the centres are, as in the authors' code, the mean of each position over the training images as the
    untrained descriptor sees them (the paper moves them image by image towards the nearest patches); the last
    epoch counts (the authors take, for each metric, the best on the test images); the last incomplete batch is
    learnt from, too; features are brought to the level of a ResNet's, for which margin and learning rate were chosen
    (the authors divide EfficientNet's by their number of channels). Without layer 1, as by default, a sixteenth of the
    distances is measured; the paper has it.
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
from iadbe.layers.features.rescale import Level
from iadbe.layers.memory_bank.kmeans import kmeans
from iadbe.layers.memory_bank.nearest_neighbours import Searched
from iadbe.layers.training.feature_cache import Held
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

STRESS = 1000  # the loss is multiplied by 1 / nu, nu = 0.001


class CFA(Detector):
    """Coupled-hypersphere-based feature adaptation."""

    paper = "Lee et al., CFA: Coupled-Hypersphere-Based Feature Adaptation, IEEE Access 2022, arXiv 2206.04325"
    year = 2022
    kind = "memory bank"
    can = frozenset({"localise"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "layers": [1, 2, 3]}

    centres: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (2, 3),
        weights: str = "auto",
        gamma_c: int = 1,
        gamma_d: int = 1,
        attract: int = 3,
        repel: int = 3,
        radius: float = 1e-5,
        margin: float = 0.1,
        epochs: int = 30,
        learning_rate: float = 1e-3,
        batch: int = 4,
        sigma: float = 4.0,
    ) -> None:
        """Choose backbone, centres, and how long patches are drawn towards them.

        Args:
            backbone: any timm model
            layers: layers whose features are stacked, on the grid of the first
            weights: a file, auto or none
            gamma_c: positions per centre; above 1, centres are clustered by k-means
            gamma_d: by what the number of channels is divided
            attract: nearest centres that attract a patch
            repel: next nearest centres that repel it
            radius: of the spheres, to begin with
            margin: how far inside (squared distance) a patch is repelled
            epochs: how often every training image is shown
            learning_rate: of AdamW with amsgrad and weight decay 5e-4
            batch: images per step
            sigma: smoothing of the map, pixels
        """
        super().__init__()
        if min(gamma_c, gamma_d, attract, epochs, batch) < 1 or repel < 0 or min(learning_rate, radius) <= 0:
            raise BadConfig("gamma_c, gamma_d, attract, epochs, batch, learning_rate and radius must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        self.level = Level(0.2)
        self.gamma_c, self.attract, self.repel, self.start, self.margin = gamma_c, attract, repel, radius, margin
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.width = max(1, sum(self.backbone.channels) // gamma_d)
        self.describe = self._untrained()
        self.radius = nn.Parameter(torch.tensor(radius))
        self.register_buffer("centres", torch.empty(0))  # (M, width)
        self._searched = Searched()

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.describe = self._untrained().to(train.device)
        self.radius = nn.Parameter(torch.tensor(self.start, device=train.device))
        held = Held(lambda batch: [self._stacked(batch)])
        self.level.learn(held(batch)[0] for batch in train.batches(16))
        self.centres = self._placed(train, held, rng)
        learnt = [*self.describe.parameters(), self.radius]
        optimizer = torch.optim.AdamW(learnt, self.learning_rate, weight_decay=5e-4, amsgrad=True)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng):
            step(optimizer, self._loss(flattened(self._described(held(batch)[0]))))

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        features = self._described(self._stacked(batch))
        count = min(self.attract, len(self.centres))
        distance, _ = self._searched(self.centres).nearest(flattened(features), count)  # (P, K)
        certain = (-distance).softmax(1)[:, 0]  # that the nearest centre is the right one
        scores = (certain * distance[:, 0]).view(len(features), *features.shape[2:])
        map_ = upsampled(scores, batch.image.shape[-2:], self.sigma)
        return Prediction(map_.amax((1, 2)), map_)

    def _loss(self, rows: Tensor) -> Tensor:
        """Return attraction plus repulsion of described patches (P, width).

        Which centres are near is found without gradients, so that no table of all distances is kept.
        """
        count = min(self.attract + self.repel, len(self.centres))
        _, near = self._searched(self.centres).nearest(rows, count)
        squares = torch.stack([(rows - self.centres[hit]).square().sum(1) for hit in near.T], 1)  # (P, K + J)
        attracted, repelled = squares[:, : self.attract], squares[:, self.attract :]
        loss = (attracted - self.radius**2).clamp(min=0).mean()
        if repelled.shape[1]:
            loss = loss + (self.radius**2 - repelled - self.margin).clamp(min=0).mean()
        return STRESS * loss

    @torch.no_grad()
    def _placed(self, train: Images, held: Held, rng: np.random.Generator) -> Tensor:
        """Return the centres (M, width): the mean of each position, clustered where that was asked for."""
        total, seen = torch.zeros((), device=train.device), 0
        for batch in train.batches(16):
            total = total + self._described(held(batch)[0]).sum(0)
            seen += len(batch)
            progress.report("centres", seen, len(train))
        positions = flattened((total / seen)[None])
        if self.gamma_c == 1:
            return positions
        return kmeans(positions, max(1, len(positions) // self.gamma_c), generator(rng))

    def _untrained(self) -> nn.Conv2d:
        return nn.Conv2d(sum(self.backbone.channels) + 2, self.width, 1)

    def _stacked(self, batch: Batch) -> Tensor:
        """Return the backbone's vector per position: (B, D, h, w)."""
        return concatenated([neighbourhood_mean(f) for f in self.backbone(batch)], "bilinear")

    def _described(self, features: Tensor) -> Tensor:
        """Return one described vector per position: (B, width, h, w)."""
        count, _, height, width = features.shape
        down = torch.linspace(-1, 1, height, device=features.device).view(1, 1, -1, 1).expand(count, 1, height, width)
        across = torch.linspace(-1, 1, width, device=features.device).expand(count, 1, height, width)
        return self.describe(torch.cat([self.level(features), down, across], 1))
