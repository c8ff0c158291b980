"""Retrieval of similar images and of similar patches at about the same place.

Global retrieval compares images by histograms of patch codes, block by block. Local retrieval compares a patch with the
patches around its position in the images found.

Paper: Li et al., "Target before Shooting: Accurate Anomaly Detection and Localization under One Millisecond via
    Cascade Patch Retrieval", IEEE TIP 2024, 2308.06748.
Differs:
    * A grid whose side is no multiple of the number of blocks is cut into blocks that differ by one position. The
      authors pad it.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor


def block_histograms(codes: Tensor, codebook_size: int, blocks: int = 5, counts: Tensor | None = None) -> Tensor:
    """Return the histogram of codes in each of ``blocks`` x ``blocks`` blocks, sum 1: (B, blocks², codebook_size).

    ``codes`` (B, h, w) holds for each position the index of its entry in the codebook.
    """
    count, height, width = codes.shape
    blocks = min(blocks, height, width)
    rows = torch.arange(height, device=codes.device) * blocks // height
    columns = torch.arange(width, device=codes.device) * blocks // width
    block = rows[:, None] * blocks + columns  # (h, w)
    image = torch.arange(count, device=codes.device).view(-1, 1, 1)
    if torch.compiler.is_exporting():  # a graph cannot size a table by the number of images
        own = F.one_hot(codes.flatten(1), codebook_size).float()  # (B, P, K)
        own = own if counts is None else own * counts.flatten(1)[:, :, None]
        member = F.one_hot(block.flatten(), blocks**2).float().T  # (S, P)
        histograms = member @ own
        return histograms / histograms.sum(2, keepdim=True).clamp(min=1)
    bins = (image * blocks**2 + block) * codebook_size + codes
    bins = bins.flatten() if counts is None else bins[counts]
    found = bins.bincount(minlength=count * blocks**2 * codebook_size)
    histograms = found.view(count, blocks**2, codebook_size).float()
    return histograms / histograms.sum(2, keepdim=True).clamp(min=1)


def block_divergence(queries: Tensor, images: Tensor, share: float = 0.8) -> Tensor:
    """Return the divergence of the histograms of images (N, S, K) from those of queries (Q, S, K): (Q, N).

    It is the sum of the Kullback-Leibler divergences of the most similar blocks, ``share`` of all, so that a defect in
    the other blocks does not affect it.
    """
    kept = max(1, int(queries.shape[1] * share))
    images = (images + 1e-8).log()
    if torch.compiler.is_exporting():
        own = queries + 1e-8
        of_blocks = (own[:, None] * (own.log()[:, None] - images)).sum(3)  # (Q, N, S)
        return of_blocks.topk(kept, dim=2, largest=False).values.sum(2)
    rows = []
    for query in queries + 1e-8:
        of_blocks = (query * (query.log() - images)).sum(2)  # (N, S)
        rows.append(of_blocks.topk(kept, dim=1, largest=False).values.sum(1))
    return torch.stack(rows)


def local_retrieval_distance(query: Tensor, references: Tensor, region: int) -> Tensor:
    """Return the local retrieval distance (h, w): 1 - the largest cosine with a patch nearby in any reference.

    Nearby is the ``region`` x ``region`` square (odd) around the same position. Descriptors ``query`` (D, h, w) and
    ``references`` (k, D, h, w) have unit length.
    """
    return _distance_nearby(query, references, region, "dhw,kdhw->khw")


def local_retrieval_distances(query: Tensor, references: Tensor, region: int) -> Tensor:
    """Return what :func:`local_retrieval_distance` does for images (B, D, h, w), each with its (B, k, D, h, w)."""
    return _distance_nearby(query, references, region, "bdhw,bkdhw->bkhw")


def _distance_nearby(query: Tensor, references: Tensor, region: int, cosines: str) -> Tensor:
    """Return local retrieval distances (..., h, w); ``cosines`` is the product of both as Einstein's sum."""
    height, width = query.shape[-2:]
    margin = region // 2
    padded = F.pad(references, [margin] * 4)
    best = torch.full((height, width), -torch.inf, device=query.device)
    inside = F.pad(torch.ones(height, width, dtype=torch.bool, device=query.device), [margin] * 4)
    for i, j in itertools.product(range(region), repeat=2):
        shifted = slice(i, i + height), slice(j, j + width)
        cosine = torch.einsum(cosines, query, padded[..., shifted[0], shifted[1]]).amax(-3)
        best = torch.where(inside[shifted], torch.maximum(best, cosine), best)
    return 1 - best
