"""Nearest neighbours in a memory bank under a condition: what is likely at a position, and a search that is masked.

Paper: Bae et al., "PNI", ICCV 2023, arXiv:2211.12634, sections 3.2 and 3.3.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

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
    table = torch.addmm((bank - mean).square().sum(1), queries - mean, (bank - mean).T, alpha=-2)
    nearest = table.masked_fill(~mask, torch.inf).argmin(1)
    hit = torch.where(mask.any(1), nearest, table.argmax(1))
    return (queries - bank[hit]).square().sum(1).sqrt()
