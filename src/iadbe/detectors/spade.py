"""SPADE: find the normal pictures most like this one; a defect is what none of them shows anywhere.

Paper: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv:2005.02357.
Differs: the galleries keep each layer on its own grid instead of the stacked one (a quarter of the memory with a
ResNet: 7.5 MB a picture of 256 x 256 with Wide-ResNet-50-2), and the squared distances are the sums of those of
the layers, so that the large grid only meets the first layer's few channels. Both give the paper's distances.
The default backbone is the one that comes with IADBE; the paper's is Wide-ResNet-50-2, its pictures 224 x 224.
Numbers: MVTec AD, Wide-ResNet-50-2, K=50: image AUROC 85.5, pixel AUROC 96.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe import progress
from iadbe.backbone import Backbone
from iadbe.detector import Detector
from iadbe.errors import BadConfig
from iadbe.images import Batch, Images
from iadbe.layers.blur import upsampled
from iadbe.layers.neighbours import nearest
from iadbe.types import Prediction

BATCH = 16  # pictures at a time during the fit
ROWS = 512  # positions of a test picture that are compared at a time: what is compared stays in the cache


class SPADE(Detector):
    """Nearest pictures by pooled features, then nearest positions by the pyramid of all layers."""

    paper = "Cohen and Hoshen, Sub-Image Anomaly Detection with Deep Pyramid Correspondences, arXiv:2005.02357"
    year = 2020
    kind = "memory bank"
    can = frozenset({"localise", "merge"})
    paper_view = {"resize": 256, "crop": 224}
    paper_params = {"backbone": "wide_resnet50_2.tv_in1k"}

    pooled: Tensor

    def __init__(
        self,
        backbone: str = "tf_efficientnet_lite0",
        layers: tuple[int, ...] = (1, 2, 3),
        weights: str = "auto",
        pooled_layer: int = 4,
        k: int = 50,
        sigma: float = 4.0,
    ) -> None:
        """Make an unfitted SPADE.

        Args:
            backbone: name of a timm model
            layers: whose features are compared position by position, the finest first; its grid is the map's
            weights: auto, none (random) or a file
            pooled_layer: whose mean over all positions finds the nearest pictures
            k: how many nearest pictures; all, where there are fewer
            sigma: of the Gaussian that smooths the map, in pixels
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
        """Keep the features of every normal picture. Nothing is random."""
        train = train.normal()
        if not len(train):
            raise BadConfig("there is no normal picture to fit on. Give at least one.")
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
            done = end
            progress.report("fit", done, len(train))
        self._centre()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Score a picture by its mean distance to the k nearest, a position by its nearest among theirs."""
        pooled, layers = self._features(batch)
        distances, which = nearest(pooled, self.pooled, min(self.k, len(self.pooled)))  # (B, k)
        maps = torch.stack([self._map([layer[i] for layer in layers], which[i]) for i in range(len(batch))])
        height, width = batch.image.shape[-2:]
        smooth = upsampled(maps, (height, width), self.sigma)
        return Prediction(distances.mean(1), smooth)

    def merge(self, others: Sequence[Self]) -> None:
        """Take over the pictures of all ``others``."""
        self.pooled = torch.cat([other.pooled for other in others])
        for number, parts in enumerate(zip(*(other._galleries() for other in others), strict=True)):
            setattr(self, f"gallery{number}", torch.cat(parts))
        self._centre()

    def _features(self, batch: Batch) -> tuple[Tensor, list[Tensor]]:
        """Return pooled features (B, D) and the layers to compare."""
        found = dict(zip(self.backbone.layers, self.backbone(batch), strict=True))
        return found[self.pooled_layer].mean((2, 3)), [found[layer] for layer in self.layers]

    def _galleries(self) -> list[Tensor]:
        return [getattr(self, f"gallery{number}") for number in range(len(self.layers))]

    def _centre(self) -> None:
        for number, gallery in enumerate(self._galleries()):
            setattr(self, f"centre{number}", gallery.mean((0, 2, 3))[:, None, None])

    def _map(self, picture: list[Tensor], which: Tensor) -> Tensor:
        """Return, for layers (C, h, w) of one picture, the distances to the pictures ``which``: (h, w)."""
        centres = [getattr(self, f"centre{number}") for number in range(len(self.layers))]
        query = _pyramid([(x - c)[None] for x, c in zip(picture, centres, strict=True)])
        best: Tensor | None = None
        for index in which.tolist():
            normal = _pyramid([g[index : index + 1] - c for g, c in zip(self._galleries(), centres, strict=True)])
            found = _nearest_squared(query, normal)
            best = found if best is None else torch.minimum(best, found)
        assert best is not None
        return best.clamp_(min=0).sqrt().view(picture[0].shape[-2:])


def _pyramid(layers: Sequence[Tensor]) -> list[Tensor]:
    """Arrange layers (1, C, h, w) into levels, each of whose cells covers whole cells of the level before it.

    A layer on the same grid joins its level, a layer whose cells do not fit is enlarged to the first (nearest).
    """
    levels = [layers[0]]
    for layer in layers[1:]:
        (height, width), (h, w) = levels[-1].shape[-2:], layer.shape[-2:]
        if (h, w) == (height, width):
            levels[-1] = torch.cat([levels[-1], layer], 1)
        elif height % h == 0 and width % w == 0:
            levels.append(layer)
        else:
            levels[0] = torch.cat([levels[0], F.interpolate(layer, size=levels[0].shape[-2:], mode="nearest")], 1)
    return levels


def _nearest_squared(query: list[Tensor], normal: list[Tensor]) -> Tensor:
    """Return each query position's squared distance (P,) to the nearest position of a normal picture.

    All positions in a coarse cell share the coarse features, so the minimum over them can be taken before the
    coarse distance is added: from fine to coarse, each level meets only as many columns as it has cells.
    """
    grids = [level.shape[-2:] for level in query]
    rows = torch.arange(grids[0][0] * grids[0][1], device=query[0].device)
    y, x = rows // grids[0][1], rows % grids[0][1]
    columns = [_nested(level, grids[number + 1 :]) for number, level in enumerate(normal)]  # (C, P of the level)
    coarse = []
    for number in range(1, len(query)):
        q = query[number][0].flatten(1).T
        cell = (y * grids[number][0] // grids[0][0]) * grids[number][1] + x * grids[number][1] // grids[0][1]
        coarse.append((_squared(q, columns[number]), cell))
    fine = query[0][0].flatten(1).T.contiguous()
    found = []
    for start in range(0, len(rows), ROWS):
        part = slice(start, start + ROWS)
        distance = _squared(fine[part], columns[0])
        for table, cell in coarse:
            distance = distance.view(len(distance), -1, table.shape[1]).amin(1)
            distance += table[cell[part]]
        found.append(distance.amin(1))
    return torch.cat(found)


def _nested(level: Tensor, coarser: Sequence[torch.Size]) -> Tensor:
    """Return (1, C, h, w) as columns (C, P), ordered by the place within each coarser cell, then by that cell."""
    for height, width in coarser:
        *lead, h, w = level.shape
        level = level.reshape(*lead, height, h // height, width, w // width).movedim((-3, -1), (-4, -3))
        level = level.flatten(-4, -3)  # (1, C, places …, height, width)
    return level.flatten(2)[0]


def _squared(queries: Tensor, columns: Tensor) -> Tensor:
    """Return squared distances (Q, P) between queries (Q, C) and columns (C, P), from centred features."""
    lengths = columns.square().sum(0)[None]
    return torch.addmm(lengths, queries, columns, alpha=-2).add_(queries.square().sum(1, keepdim=True))
