"""Nearest neighbours in a memory bank under a condition: what is likely at a position, and a search that is masked.

Paper: Bae et al., "PNI", ICCV 2023, arXiv:2211.12634, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.layers.memory_bank.nearest_neighbours import EXPORTED_BLOCK

MAPS = 256  # bank patches whose histograms are summed at a time


def position_prior(nearest: Iterable[Tensor], size: int, reach: int) -> Tensor:
    """Return p(c | x), the share of each bank patch c around each position x: (h * w, M), rows summing to 1.

    Args:
        nearest: batches (B, h, w) of the indices of the bank patches nearest to training patches; -1: does not count
        size: M, number of bank patches
        reach: positions to each side that count as the neighbourhood of x; positions outside of the grid are empty
    """
    counts, height, width = torch.zeros(0), 0, 0
    for hit in nearest:
        height, width = hit.shape[1:]
        place = torch.arange(height * width, device=hit.device) * size + hit.flatten(1)
        found = place[hit.flatten(1) >= 0].bincount(minlength=height * width * size)
        counts = found if not len(counts) else counts + found
    maps = counts.view(height, width, size).permute(2, 0, 1).float()
    side = 2 * reach + 1
    histogram = torch.cat([F.avg_pool2d(m, side, stride=1, padding=reach) * side**2 for m in maps.split(MAPS)])
    return (histogram / histogram.sum(0).clamp(min=1)).flatten(1).T


def masked_nearest_distance(queries: Tensor, bank: Tensor, mask: Tensor) -> Tensor:
    """Return the distance (n,) of queries (n, D) to the nearest patch of the bank (M, D) where the mask (n, M) is true.

    Where the mask of a query is empty, the distance to the farthest patch counts.
    """
    mean = bank.mean(0)  # squared norms around it cancel least
    if torch.compiler.is_exporting():
        return _in_blocks(queries, bank, mask, mean)
    table = torch.addmm((bank - mean).square().sum(1), queries - mean, (bank - mean).T, alpha=-2)
    nearest = table.masked_fill(~mask, torch.inf).argmin(1)
    hit = torch.where(mask.any(1), nearest, table.argmax(1))
    return (queries - bank[hit]).square().sum(1).sqrt()


def _in_blocks(queries: Tensor, bank: Tensor, mask: Tensor, mean: Tensor) -> Tensor:
    """Return what :func:`masked_nearest_distance` does, block after block of the bank, which bounds memory."""
    nearest, farthest = [], []
    for start in range(0, bank.shape[0], EXPORTED_BLOCK):
        part = slice(start, start + EXPORTED_BLOCK)
        block = bank[part] - mean
        table = block.square().sum(1) - 2 * (queries - mean) @ block.T
        low, high = table.masked_fill(~mask[:, part], torch.inf).min(1), table.max(1)
        nearest.append((low.values, low.indices + start))
        farthest.append((high.values, high.indices + start))
    (low_values, low_places), (high_values, high_places) = (
        [torch.stack(part, 1) for part in zip(*found, strict=True)] for found in (nearest, farthest)
    )
    near = low_places.gather(1, low_values.argmin(1, keepdim=True))[:, 0]
    far = high_places.gather(1, high_values.argmax(1, keepdim=True))[:, 0]
    hit = torch.where(low_values.amin(1).isinf(), far, near)
    return (queries - bank[hit]).square().sum(1).sqrt()
