"""SPADE: find the normal images most like this one; a defect is what none of them shows anywhere.

Paper: Cohen and Hoshen, "Sub-Image Anomaly Detection with Deep Pyramid Correspondences", 2020, arXiv:2005.02357.
Differs: the galleries keep each layer on its own grid instead of the stacked one, a quarter of the memory with a
ResNet (7.3 MB instead of 29 MB an image of 256 x 256 with Wide-ResNet-50-2). A squared distance is the sum of those of
the layers, so that the coarse layers rule out most positions before the fine one is looked at: the nearest is
still the exact one, since what is left out is farther.
The default backbone is the one that comes with IADBE; the paper's is Wide-ResNet-50-2, its images 224 x 224.
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
from iadbe.layers.features.patches import concatenated
from iadbe.layers.memory_bank.nearest_neighbours import nearest_neighbours
from iadbe.networks.backbone import Backbone
from iadbe.types import Prediction

BATCH = 16  # images at a time during the fit
FEW = 0.05  # share of pairs of tiles up to which it pays to compare them one by one
AT_ONCE = 2**22  # numbers that are compared at a time


class SPADE(Detector):
    """Nearest images by pooled features, then nearest positions by the pyramid of all layers."""

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
            pooled_layer: whose mean over all positions finds the nearest images
            k: how many nearest images; all, where there are fewer
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
        """Keep the features of every normal image. Nothing is random."""
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
            done = end
            progress.report("fit", done, len(train))
        self._centre()

    @torch.no_grad()
    def predict(self, batch: Batch) -> Prediction:
        """Score an image by its mean distance to the k nearest, a position by its nearest among theirs."""
        pooled, layers = self._features(batch)
        distances, which = nearest_neighbours(pooled, self.pooled, min(self.k, len(self.pooled)))  # (B, k)
        maps = torch.stack([self._map([layer[i] for layer in layers], which[i]) for i in range(len(batch))])
        height, width = batch.image.shape[-2:]
        smooth = upsampled(maps, (height, width), self.sigma)
        return Prediction(distances.mean(1), smooth)

    def merge(self, others: Sequence[Self]) -> None:
        """Take over the images of all ``others``."""
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

    def _map(self, image: list[Tensor], which: Tensor) -> Tensor:
        """Return, for layers (C, h, w) of one image, the distances to the images ``which``: (h, w)."""
        centres = [getattr(self, f"centre{number}") for number in range(len(self.layers))]
        query = _Pyramid([x - c for x, c in zip(image, centres, strict=True)])
        best = torch.full_like(query.fine[..., 0], torch.inf)
        for index in which.tolist():
            normal = _Pyramid([g[index] - c for g, c in zip(self._galleries(), centres, strict=True)])
            best = _nearer(best, query, normal)
        return query.unfolded(best.sqrt())


class _Pyramid:
    """One image's layers as tiles: the fine positions (T, t, C) under each of the T cells of the next coarser layer.

    A layer whose cells are no whole tiles is enlarged to the first (nearest), as the stacked features are.
    Without a coarser layer there is one tile.
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        self.size = height, width = layers[0].shape[1:]
        fits = [height % x.shape[1] == 0 and width % x.shape[2] == 0 and x.shape[1:] != self.size for x in layers]
        coarse = [x for x, fit in zip(layers, fits, strict=True) if fit]
        self.grid = rows, columns = coarse[0].shape[1:] if coarse else (1, 1)
        fits = [
            fit and rows % x.shape[1] == 0 and columns % x.shape[2] == 0 for x, fit in zip(layers, fits, strict=True)
        ]
        fine = concatenated([x[None] for x, fit in zip(layers, fits, strict=True) if not fit])[0]
        tiles = fine.view(-1, rows, height // rows, columns, width // columns).permute(1, 3, 2, 4, 0)
        self.fine = tiles.reshape(rows * columns, -1, len(fine))
        self.coarse = [(x.flatten(1).T, self._cells(x)) for x, fit in zip(layers, fits, strict=True) if fit]

    def _cells(self, layer: Tensor) -> Tensor:
        """Return which cell of a coarse layer (C, h, w) lies over each tile: (T,)."""
        (rows, columns), (h, w) = self.grid, layer.shape[1:]
        y, x = torch.arange(rows, device=layer.device), torch.arange(columns, device=layer.device)
        return ((y * h // rows)[:, None] * w + x * w // columns).flatten()

    def unfolded(self, values: Tensor) -> Tensor:
        """Bring values of tiles (T, t) back to the finest grid: (h, w)."""
        (height, width), (rows, columns) = self.size, self.grid
        tiles = values.view(rows, columns, height // rows, width // columns)
        return tiles.transpose(1, 2).reshape(height, width)


def _nearer(best: Tensor, query: _Pyramid, normal: _Pyramid) -> Tensor:
    """Return the smaller of ``best`` (T, t) and each position's squared distance to its nearest in one more image.

    What two tiles differ by in the coarse layers is a bound for all their positions. Only pairs of tiles whose bound
    lies below the best so far are compared in the finest layer: of natural images, less than one in a hundred.
    """
    bound = best.new_zeros(len(best), len(best))  # (T of the query, T of the normal image)
    for (q, cells), (n, _) in zip(query.coarse, normal.coarse, strict=True):
        table = torch.addmm(n.square().sum(1)[None], q, n.T, alpha=-2).add_(q.square().sum(1, keepdim=True))
        if len(table) < len(best):  # still coarser than the tiles; whole rows are quick to copy
            table = table.T.index_select(0, cells).T.contiguous().index_select(0, cells)
        bound += table.clamp_(min=0)
    if query.coarse:
        closest = torch.stack([torch.arange(len(best), device=best.device), bound.argmin(1)], 1)
        best = _compare_pairs(best, query, normal, closest, bound)
    near = bound < best.amax(1, keepdim=True)
    if near.count_nonzero() < FEW * near.numel():
        return _compare_pairs(best, query, normal, near.nonzero(), bound)
    return _compare_all(best, query, normal, bound)


def _compare_pairs(best: Tensor, query: _Pyramid, normal: _Pyramid, pairs: Tensor, bound: Tensor) -> Tensor:
    """Compare only the pairs of tiles (N, 2)."""
    t, channels = query.fine.shape[1:]
    for i, j in (part.T for part in pairs.split(max(1, AT_ONCE // (t * t * channels)))):
        apart = query.fine[i][:, :, None] - normal.fine[j][:, None]  # (n, t, t, C)
        squared = apart.square_().sum(3).amin(2) + bound[i, j, None]  # (n, t)
        best = best.scatter_reduce(0, i[:, None].expand(-1, t), squared, "amin")
    return best


def _compare_all(best: Tensor, query: _Pyramid, normal: _Pyramid, bound: Tensor) -> Tensor:
    """Compare every tile with every tile."""
    tiles, t, channels = query.fine.shape
    columns = normal.fine.transpose(0, 1).reshape(-1, channels).T  # (C, t * T)
    lengths = columns.square().sum(0)
    found = []
    for start in range(0, tiles, rows := max(1, AT_ONCE // (t * t * tiles))):
        q = query.fine[start : start + rows].flatten(0, 1)
        squared = torch.addmm(lengths, q, columns, alpha=-2).add_(q.square().sum(1, keepdim=True)).clamp_(min=0)
        least = squared.view(-1, t, t, tiles).amin(2) + bound[start : start + rows, None]  # (r, t, T)
        found.append(least.amin(2))
    return torch.minimum(best, torch.cat(found))
