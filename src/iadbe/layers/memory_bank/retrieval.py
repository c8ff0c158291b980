"""Which images are laid out alike: histograms of kinds of patches, block by block.

Paper: Li et al., "Target before Shooting: Accurate Anomaly Detection and Localization under One Millisecond via
    Cascade Patch Retrieval", IEEE TIP 2024, 2308.06748, the global retrieval.
Differs: a grid whose side the blocks do not divide is cut into blocks that differ by one position (the authors pad it).
"""

from __future__ import annotations

import torch
from torch import Tensor


def block_histograms(codes: Tensor, kinds: int, blocks: int = 5) -> Tensor:
    """Return the share of each kind in each of ``blocks`` x ``blocks`` blocks: (B, blocks², kinds).

    ``codes`` (B, h, w) says of what kind each position is.
    """
    count, height, width = codes.shape
    blocks = min(blocks, height, width)
    down = torch.arange(height, device=codes.device) * blocks // height
    across = torch.arange(width, device=codes.device) * blocks // width
    block = down[:, None] * blocks + across  # (h, w)
    image = torch.arange(count, device=codes.device).view(-1, 1, 1)
    slot = (image * blocks**2 + block) * kinds + codes
    found = slot.flatten().bincount(minlength=count * blocks**2 * kinds).view(count, blocks**2, kinds).float()
    return found / found.sum(2, keepdim=True)


def divergence(queries: Tensor, images: Tensor, share: float = 0.8) -> Tensor:
    """Return how far the layouts of images (N, S, K) are from those of queries (Q, S, K): (Q, N).

    Of each pair, the Kullback-Leibler divergences of the blocks that are most alike are summed, ``share`` of all: a
    defect in some blocks does not hide what the others say.
    """
    few = max(1, int(queries.shape[1] * share))
    images = (images + 1e-8).log()
    rows = []
    for query in queries + 1e-8:
        apart = (query * (query.log() - images)).sum(2)  # (N, S)
        rows.append(apart.topk(few, dim=1, largest=False).values.sum(1))
    return torch.stack(rows)
