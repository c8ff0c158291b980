"""A decoder (student) reconstructs a frozen encoder's (teacher's) features; the score is their cosine distance.

Paper: Deng and Li, "Anomaly Detection via Reverse Distillation from One-Class Embedding", CVPR 2022, arXiv:2201.10703.
    The teacher is a frozen encoder. Multi-scale feature fusion (MFF) brings its layers to the grid of the last one by
    convolutions and concatenates them. The one-class embedding (OCE), a residual stage, halves that grid. The student,
    a mirrored decoder with transposed convolutions, reconstructs the layers, the deepest first. The loss of a layer is
    one minus the cosine between the flattened maps, as in the authors' code. The map is the sum over layers of one
    minus the cosine at each position. An image's score is the largest value of its map.
Differs:
    * The decoder follows any teacher. It mirrors the blocks of a ResNet. For other networks it has two basic residual
      blocks per layer, without a final ReLU, as layers with linear bottlenecks have negative values.
    * The embedding has twice the channels of the last layer.
    * Maps are interpolated with ``align_corners=False``.
Numbers: MVTec AD, WRN50-2, 256: image AUROC 98.5, pixel AUROC 97.8, AUPRO 93.9.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.blocks.one_class_decoder import OneClassDecoder, flattened_cosine_loss
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import image_score
from iadbe.layers.training.feature_cache import FeatureCache
from iadbe.layers.training.loop import loop, seeded, step
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction


class ReverseDistillation(Detector):
    """Reverse distillation from a one-class embedding."""

    paper = "Deng and Li, Anomaly Detection via Reverse Distillation from One-Class Embedding, CVPR 2022, 2201.10703"
    year = 2022
    kind = "student-teacher"
    can = frozenset({"localise"})
    paper_view = {"resize": 256}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k"}

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        epochs: int = 200,
        learning_rate: float = 0.005,
        batch: int = 16,
        sigma: float = 4.0,
    ) -> None:
        """Choose the teacher and the training of the student.

        Args:
            backbone: any timm model: the teacher, whose layers the student mirrors
            layers: layers that are reconstructed, the finest first
            weights: the teacher's: a file, auto or none
            epochs: passes over the training images
            learning_rate: of Adam with betas 0.5 and 0.999
            batch: images per step
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if min(epochs, batch) < 1 or learning_rate <= 0:
            raise BadConfig(f"epochs {epochs}, batch {batch} and learning_rate {learning_rate} must all be above 0.")
        self.backbone = Backbone(backbone, layers, weights)
        if list(layers) != sorted(set(layers)):
            raise BadConfig(f"layers are given once each, the finest first, not {list(layers)}.")
        self.epochs, self.learning_rate, self.batch, self.sigma = epochs, learning_rate, batch, sigma
        self.student = OneClassDecoder(self.backbone)

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        train = train.normal()
        with seeded(rng):
            self.student = OneClassDecoder(self.backbone)
        self.student.to(train.device).train()
        optimizer = torch.optim.Adam(self.student.parameters(), self.learning_rate, betas=(0.5, 0.999))
        features = FeatureCache(self.backbone)
        for batch in loop(train, epochs=self.epochs, batch=self.batch, rng=rng, state=(optimizer,)):
            teacher = features(batch)
            step(optimizer, flattened_cosine_loss(teacher, self.student(teacher), batch.region))
        self.student.eval()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        self.student.eval()
        teacher = self.backbone(batch)
        size = batch.image.shape[-2:]
        pairs = zip(teacher, self.student(teacher), strict=True)
        errors = [upsampled(1 - F.cosine_similarity(t, s), size, self.sigma, region=batch.region) for t, s in pairs]
        map_ = torch.stack(errors).sum(0)
        return Prediction(image_score(map_, batch.region), map_)
