"""Exact nearest positions in feature pyramids, pruned by the coarse layers.

Paper: Cohen and Hoshen, "SPADE", 2020, arXiv:2005.02357: a position's features are those of several layers, the coarse
    ones repeated over the positions that they cover.
Differs:
    * The plain algorithm compares all positions of both images in concatenated features. Here most pairs are skipped.
    * A squared distance is the sum of those of the layers, and the coarse layers' part is the same for whole tiles of
      positions. It is computed first and is a lower bound. Tiles whose bound exceeds the best distance so far are
      skipped. They are farther, so the result is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from iadbe.layers.features.patches import concatenated

MAX_PAIRS = 0.05  # share of pairs of tiles up to which comparing them one by one is faster
CHUNK = 2**22  # values that are compared at a time


class FeaturePyramid:
    """One image's layers as tiles: the t fine positions under each of the T cells of the next coarser layer.

    A layer whose cells do not cover whole tiles is enlarged to the finest grid (nearest), as in the paper. Without a
    coarser layer there is one tile.

    Attributes:
        fine: features (T, t, C) of the finest grid
        coarse: for each coarser layer, its features (h * w, C) and the cell over each tile (T,)
    """

    def __init__(self, layers: Sequence[Tensor]) -> None:
        """Take layers (C, h, w) of one image, the finest first."""
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
        """Return the index (T,) of the cell of a coarse layer (C, h, w) over each tile."""
        (rows, columns), (h, w) = self.grid, layer.shape[1:]
        y, x = torch.arange(rows, device=layer.device), torch.arange(columns, device=layer.device)
        return ((y * h // rows)[:, None] * w + x * w // columns).flatten()

    def untiled(self, values: Tensor) -> Tensor:
        """Return values (T, t) of tiles on the finest grid: (h, w)."""
        (height, width), (rows, columns) = self.size, self.grid
        tiles = values.view(rows, columns, height // rows, width // columns)
        return tiles.transpose(1, 2).reshape(height, width)


def nearer(best: Tensor, query: FeaturePyramid, normal: FeaturePyramid) -> Tensor:
    """Return the minimum of ``best`` (T, t) and each position's squared distance to its nearest in one more image.

    The squared distance of two tiles in the coarse layers is a lower bound for all their positions. Only pairs of tiles
    whose bound is below the best so far are compared in the finest layer: with natural images, less than one percent.
    """
    bound = best.new_zeros(len(best), len(best))  # (T of the query, T of the normal image)
    for (q, cells), (n, _) in zip(query.coarse, normal.coarse, strict=True):
        distance = torch.addmm(n.square().sum(1)[None], q, n.T, alpha=-2).add_(q.square().sum(1, keepdim=True))
        if len(distance) < len(best):  # coarser than the tiles; copying whole rows is fast
            distance = distance.T.index_select(0, cells).T.contiguous().index_select(0, cells)
        bound += distance.clamp_(min=0)
    if query.coarse:
        closest = torch.stack([torch.arange(len(best), device=best.device), bound.argmin(1)], 1)
        best = _compare_pairs(best, query, normal, closest, bound)
    candidates = bound < best.amax(1, keepdim=True)
    if candidates.count_nonzero() < MAX_PAIRS * candidates.numel():
        return _compare_pairs(best, query, normal, candidates.nonzero(), bound)
    return _compare_all(best, query, normal, bound)


def _compare_pairs(best: Tensor, query: FeaturePyramid, normal: FeaturePyramid, pairs: Tensor, bound: Tensor) -> Tensor:
    """Compare the given pairs of tiles (N, 2) only."""
    t, channels = query.fine.shape[1:]
    for i, j in (part.T for part in pairs.split(max(1, CHUNK // (t * t * channels)))):
        difference = query.fine[i][:, :, None] - normal.fine[j][:, None]  # (n, t, t, C)
        squared = difference.square_().sum(3).amin(2) + bound[i, j, None]  # (n, t)
        best = best.scatter_reduce(0, i[:, None].expand(-1, t), squared, "amin")
    return best


def _compare_all(best: Tensor, query: FeaturePyramid, normal: FeaturePyramid, bound: Tensor) -> Tensor:
    """Compare every tile with every tile."""
    tiles, t, channels = query.fine.shape
    columns = normal.fine.transpose(0, 1).reshape(-1, channels).T  # (C, t * T)
    lengths = columns.square().sum(0)
    found = []
    for start in range(0, tiles, rows := max(1, CHUNK // (t * t * tiles))):
        q = query.fine[start : start + rows].flatten(0, 1)
        squared = torch.addmm(lengths, q, columns, alpha=-2).add_(q.square().sum(1, keepdim=True)).clamp_(min=0)
        minimum = squared.view(-1, t, t, tiles).amin(2) + bound[start : start + rows, None]  # (r, t, T)
        found.append(minimum.amin(2))
    return torch.minimum(best, torch.cat(found))


def nearest_in_images(layers: Sequence[Tensor], galleries: Sequence[Tensor], which: Tensor) -> Tensor:
    """Return the distances (B, h, w) of positions to the nearest ones in some images, by the plain algorithm.

    An exported graph cannot prune, because what is left follows from values. It compares with one image at a time.

    Args:
        layers: of images, (B, C, h, w) each, the finest first
        galleries: the same layers of normal images, (N, C, h, w) each
        which: indices (B, k) of the normal images that each image is compared with
    """
    height, width = layers[0].shape[2:]
    rows, best = concatenated(layers).flatten(2).mT, None  # (B, P, D)
    for number in range(which.shape[1]):
        normal = concatenated([gallery[which[:, number]] for gallery in galleries]).flatten(2).mT
        centre = normal.mean(1, keepdim=True)  # squared norms around it cancel least
        others = normal - centre
        nearest = (others.square().sum(2)[:, None] - 2 * (rows - centre) @ others.mT).argmin(2)  # (B, P)
        hit = normal.gather(1, nearest[:, :, None].expand_as(rows))
        distance = (rows - hit).square().sum(2)
        best = distance if best is None else torch.minimum(best, distance)
    assert best is not None
    return best.sqrt().view(-1, height, width)
