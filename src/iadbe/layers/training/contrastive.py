"""Contrastive training of patch descriptors: pairs of positions in two images, and a hinge loss on their cosines.

Paper: Li et al., "Cascade Patch Retrieval" (CPR), IEEE TIP 2024, 2308.06748: metric learning.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Pairs = tuple[Tensor, Tensor]  # coordinates (B, n, 2) in query and reference


class PairSample(NamedTuple):
    """Pairs of positions in B query images and their references, with weights (B, n): 0 where there is no such pair.

    Coordinates (B, n, 2) are x and y from -1 to 1.
    """

    normal: Tensor  # normal in the query; the same position in both images
    normal_weight: Tensor
    defect: Tensor  # defective in the query; the same position in both images
    defect_weight: Tensor
    distant: Pairs  # any position of the query, a normal one of the reference, far from each other
    distant_weight: Tensor


def sample_pairs(
    mask: Tensor, distance: float, count: int, generator: torch.Generator, counts: Tensor | None = None
) -> PairSample:
    """Sample up to ``count`` pairs of each kind per image, given defect masks (B, 1, H, W), bool.

    Distant pairs are more than ``distance`` pixels apart.
    """
    images, _, height, width = mask.shape
    priority = torch.rand(images, height * width, generator=generator).to(mask.device)
    defective, inside = mask.flatten(1), torch.ones_like(mask) if counts is None else counts
    chosen = [part & inside.flatten(1) for part in (~defective, defective)]
    normal, defect = (_top(priority * part, width, height, count) for part in chosen)
    pixels = torch.tensor([width, height], device=mask.device)
    anywhere = torch.rand(images, normal[0].shape[1], 2, generator=generator).to(mask.device) * 2 - 1
    far = ((anywhere - normal[0]) / 2 * pixels).norm(dim=2) > distance
    return PairSample(*normal, *defect, (anywhere, normal[0]), far * normal[1])


def values_at(features: Tensor, positions: Tensor) -> Tensor:
    """Interpolate features (B, C, h, w) at positions (B, n, 2): (B, C, n)."""
    return F.grid_sample(features, positions[:, :, None], align_corners=False)[..., 0]


def pair_cosines(query: Tensor, reference: Tensor, pairs: Pairs) -> Tensor:
    """Return the cosine of descriptors (B, C, h, w) for each pair: (B, n)."""
    return F.cosine_similarity(values_at(query, pairs[0]), values_at(reference, pairs[1]), dim=1)


def cubed_hinge(excess: Tensor, weight: Tensor) -> Tensor:
    """Return the mean of max(0, excess · weight)³ over the pairs (B, n) with a weight above 0: ()."""
    return (excess.clamp(min=0) * weight).pow(3).sum() / (weight > 0).sum().clamp(min=1)


def _top(priority: Tensor, width: int, height: int, count: int) -> Pairs:
    """Return the positions (B, n, 2) of the highest priorities (B, H * W), and weight 1 where it is above 0: (B, n)."""
    best = priority.topk(min(count, priority.shape[1]), dim=1)
    x, y = best.indices % width, best.indices // width
    position = torch.stack([(x + 0.5) / width, (y + 0.5) / height], 2) * 2 - 1
    return position, (best.values > 0).float()
