"""A Gaussian per position over features of normal images; the score is the Mahalanobis distance.

Paper: Defard et al., "PaDiM: a Patch Distribution Modeling Framework for Anomaly Detection and Localization",
    ICPR Workshops 2020, arXiv:2011.08785.
Differs:
    * Covariances are summed batch by batch and factorised (Cholesky) in place, so memory does not grow with the
      number of images. The distances are the paper's.
    * The default backbone is the one that comes with IADBE. The paper's are ResNet-18 with 100 of 448 channels,
      Wide-ResNet-50-2 with 550 of 1792, and EfficientNet-B5.
Numbers: MVTec AD, Wide-ResNet-50-2: image AUROC 95.3, pixel AUROC 97.5, as other papers cite it. Anomalib reports
    89.1 and 96.8 with ResNet-18, 95.0 and 97.9 with Wide-ResNet-50-2. With ResNet-18 the random choice of channels
    alone moves single categories by some points of image AUROC: look at several seeds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.channel_selection import balanced_channels, random_channels, shared_generator
from iadbe.layers.features.patches import concatenated
from iadbe.layers.features.region import at_grid, image_score
from iadbe.layers.statistics.gaussian import PositionGaussians
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16  # images per forward pass during fit


class PaDiM(Detector):
    """Patch distribution modelling."""

    paper = "Defard et al., PaDiM: a Patch Distribution Modeling Framework, ICPR Workshops 2020, arXiv:2011.08785"
    year = 2020
    kind = "Gaussian"
    can = frozenset({"localise", "merge"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k", "dims": 550}

    channels: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        dims: int = 100,
        draw: Literal["all", "layer"] = "all",
        regularisation: float = 0.01,
        sigma: float = 4.0,
    ) -> None:
        """Make an unfitted PaDiM.

        Args:
            backbone: name of a timm model
            layers: layers whose features are concatenated, the finest first; the map has the first one's grid
            weights: auto, none (random) or a file
            dims: number of randomly chosen channels; 0: all
            draw: all: channels are drawn from all layers together; layer: equally many from each layer
            regularisation: ε, added to the diagonal of every covariance (equation 1)
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if dims < 0:
            raise BadConfig(f"dims must be 0 (all) or a number of channels, not {dims}.")
        self.backbone = Backbone(backbone, layers, weights)
        self.gaussians = PositionGaussians(regularisation)
        self.dims, self.draw = dims, draw
        self.sigma = sigma
        self.register_buffer("channels", torch.empty(0, dtype=torch.int64))  # (dims,), of the concatenated layers

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        """Draw the channels, then estimate mean and covariance of every position.

        The draw depends on the seed of ``rng`` alone (see :func:`shared_generator`), so that
        federated clients of one run can be merged.
        """
        train = train.normal()
        draw = balanced_channels if self.draw == "layer" else random_channels
        chosen = draw(shared_generator(rng), self.backbone.channels, self.dims or sum(self.backbone.channels))
        self.channels = torch.from_numpy(chosen).to(self.channels.device)
        self.gaussians.reset()
        for number, batch in enumerate(train.batches(BATCH)):
            features = self._features(batch)
            self.gaussians.add(features, at_grid(batch.region, (features[0].shape[2], features[0].shape[3])))
            progress.report("fit", number * BATCH + len(batch), len(train))
        self.gaussians.factorise()

    def predict(self, batch: Batch) -> Prediction:
        """Score positions by their Mahalanobis distance (equation 2), images by the maximum of the smoothed map."""
        distance = self.gaussians.distance(self._features(batch))
        height, width = batch.image.shape[-2:]
        map_ = upsampled(distance, (height, width), self.sigma, region=batch.region)
        return Prediction(image_score(map_, batch.region), map_)

    def merge(self, others: Sequence[Self]) -> None:
        """Become exactly what one PaDiM would have learnt from all images of ``others``."""
        if any(not torch.equal(other.channels, others[0].channels) for other in others):
            raise BadConfig("PaDiMs over different channels cannot be merged. Fit them with generators of one seed.")
        self.channels = others[0].channels.clone()
        self.gaussians.merge([other.gaussians for other in others])

    def _features(self, batch: Batch) -> list[Tensor]:
        """Return the chosen channels of each layer, (B, C, h, w); C can be 0."""
        selected, start, layers = [], 0, self.backbone(batch)
        if torch.compiler.is_exporting():  # a graph has no layers of widths that depend on values
            return [concatenated(layers)[:, self.channels]]
        for layer in layers:
            own = self.channels[(self.channels >= start) & (self.channels < start + layer.shape[1])]
            selected.append(layer[:, own - start])
            start += layer.shape[1]
        return selected
