"""Nearest images by pooled features; a position's score is the distance to the nearest in their feature pyramids.

Paper: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv:2005.02357. An
    image's score is its mean distance to the K nearest training images. A position's score is the distance to the
    nearest position, in concatenated features of several layers, among these K images.
Differs:
    * Each layer is stored on its own grid, not on the finest one. With Wide-ResNet-50-2 this takes 7.3 MB instead of
      29 MB per image of 256 x 256.
    * The search is pruned by the coarse layers and still exact (see ``iadbe.layers.memory_bank.pyramid_search``).
    * The default backbone is the one that comes with IADBE. The paper's is Wide-ResNet-50-2, with images of 224 x 224.
Numbers: MVTec AD, Wide-ResNet-50-2, K=50: image AUROC 85.5, pixel AUROC 96.5. A known re-implementation in PyTorch,
    with K=5: 85.4 and 96.4, on transistors 90.3 and 86.6 where the paper has 94.1 for the pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.layers.features.anomaly_map import upsampled
from iadbe.layers.features.region import at_grid, average_pooled
from iadbe.layers.memory_bank.nearest_neighbours import nearest_neighbours
from iadbe.layers.memory_bank.pyramid_search import FeaturePyramid, nearer, nearest_in_images
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16  # images per forward pass during fit
FAR = 1e4  # features of positions of the gallery that do not count: no position is nearest to them


class SPADE(Detector):
    """Semantic pyramid anomaly detection."""

    paper = "Cohen and Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv:2005.02357"
    year = 2020
    kind = "memory bank"
    can = frozenset({"localise", "merge"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k"}

    pooled: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0.in1k",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        pooled_layer: int = 4,
        k: int = 50,
        sigma: float = 4.0,
    ) -> None:
        """Make an unfitted SPADE.

        Args:
            backbone: name of a timm model
            layers: layers compared position by position, the finest first; the map has the first one's grid
            weights: auto, none (random) or a file
            pooled_layer: layer whose mean over all positions finds the nearest images
            k: K, number of nearest images, or all if there are fewer
            sigma: standard deviation of the Gaussian that smooths the map, in pixels
        """
        super().__init__()
        if k < 1:
            raise BadConfig(f"k must be at least 1, not {k}.")
        self.layers = tuple(layers)
        self.pooled_layer = pooled_layer
        self.backbone = Backbone(backbone, tuple(dict.fromkeys((*self.layers, pooled_layer))), weights)
        self.k = k
        self.sigma = sigma
        self.register_buffer("pooled", torch.empty(0))  # (N, D)
        for number in range(len(self.layers)):
            self.register_buffer(f"gallery{number}", torch.empty(0))  # (N, C, h, w)
            self.register_buffer(f"centre{number}", torch.empty(0))  # (C, 1, 1), the gallery's mean

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        """Store the features of every normal image; nothing is random."""
        train = train.normal()
        if not len(train):
            raise BadConfig("there is no normal image to fit on. Give at least one.")
        done = 0
        for batch in train.batches(BATCH):
            pooled, layers = self._features(batch)
            if done == 0:
                self.pooled = pooled.new_empty(len(train), pooled.shape[1])
                for number, layer in enumerate(layers):
                    setattr(self, f"gallery{number}", layer.new_empty(len(train), *layer.shape[1:]))
            end = done + len(batch)
            self.pooled[done:end] = pooled
            for gallery, layer in zip(self._galleries(), layers, strict=True):
                gallery[done:end] = layer
            if batch.region is not None:
                counts = at_grid(batch.region, (layers[0].shape[2], layers[0].shape[3]))
                self.gallery0[done:end] = layers[0].masked_fill(~counts[:, None], FAR)
            done = end
            progress.report("fit", done, len(train))
        self._centre()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Score images by the mean distance to the k nearest, positions by the nearest position of these images."""
        pooled, layers = self._features(batch)
        distances, which = nearest_neighbours(pooled, self.pooled, min(self.k, len(self.pooled)))  # (B, k)
        if torch.compiler.is_exporting():
            maps = nearest_in_images(layers, self._galleries(), which)
        else:
            maps = torch.stack([self._map([layer[i] for layer in layers], which[i]) for i in range(len(batch))])
        height, width = batch.image.shape[-2:]
        return Prediction(distances.mean(1), upsampled(maps, (height, width), self.sigma, region=batch.region))

    def merge(self, others: Sequence[Self]) -> None:
        """Concatenate the galleries of all ``others``."""
        self.pooled = torch.cat([other.pooled for other in others])
        for number, parts in enumerate(zip(*(other._galleries() for other in others), strict=True)):
            setattr(self, f"gallery{number}", torch.cat(parts))
        self._centre()

    def _features(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return pooled features (B, D) and the layers to compare, each (B, C, h, w)."""
        found = dict(zip(self.backbone.layers, self.backbone(batch), strict=True))
        return average_pooled(found[self.pooled_layer], batch.region), [found[layer] for layer in self.layers]

    def _galleries(self) -> list[Tensor]:
        """Return the stored layers, each (N, C, h, w)."""
        return [getattr(self, f"gallery{number}") for number in range(len(self.layers))]

    def _centre(self) -> None:
        """Store each gallery's mean, around which squared norms cancel least."""
        for number, gallery in enumerate(self._galleries()):
            counts = gallery != FAR
            mean = (
                gallery.mean((0, 2, 3)) if counts.all() else (gallery * counts).sum((0, 2, 3)) / counts.sum((0, 2, 3))
            )
            setattr(self, f"centre{number}", mean[:, None, None])

    def _map(self, image: list[Tensor], which: Tensor) -> Tensor:
        """Return the distances (h, w) of one image, given as layers (C, h, w), to the gallery images ``which`` (k,)."""
        centres = [getattr(self, f"centre{number}") for number in range(len(self.layers))]
        query = FeaturePyramid([x - c for x, c in zip(image, centres, strict=True)])
        best = torch.full_like(query.fine[..., 0], torch.inf)
        for index in which.tolist():
            normal = FeaturePyramid([g[index] - c for g, c in zip(self._galleries(), centres, strict=True)])
            best = nearer(best, query, normal)
        return query.untiled(best.sqrt())
