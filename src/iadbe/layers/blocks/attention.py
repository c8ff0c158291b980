"""Attention among the positions of a grid: linear attention, and softmax attention that may not look at neighbours.

Paper: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Katharopoulos et al., "Transformers are RNNs", ICML
    2020, 2006.16236 (linear attention); You et al., "UniAD", NeurIPS 2022, 2206.03687 (neighbour mask, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearAttention(nn.Module):
    """Self-attention with φ(q)·φ(k), φ = elu + 1, in place of exp(q·k): its cost grows with N, not N²."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.mixed, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        images, count, dim = x.shape
        split = self.mixed(x).view(images, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = F.elu(split[0]) + 1, F.elu(split[1]) + 1, split[2]  # (B, heads, N, d)
        summary = key.transpose(-2, -1) @ value  # (B, heads, d, d)
        total = query @ key.sum(-2)[..., None]  # (B, heads, N, 1)
        return self.out((query @ summary / total).transpose(1, 2).reshape(images, count, dim))


class LinearBlock(nn.Module):
    """A transformer block with linear attention, normalised before each part."""

    def __init__(self, dim: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.before, self.attention = nn.LayerNorm(dim, eps=1e-8), LinearAttention(dim, heads)
        self.between = nn.LayerNorm(dim, eps=1e-8)
        self.perceptron = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        x = x + self.attention(self.before(x))
        return x + self.perceptron(self.between(x))


class AttentionLayer(nn.Module):
    """One sub-layer: queries look at keys, which say where, for values, which say what; added and normalised after.

    ``thinning`` is dropout on the attention's weights. Without it the N x N weights need never be whole, which on a
    processor makes attention six times quicker.
    """

    def __init__(self, dim: int, heads: int, dropout: float, thinning: float = 0.0) -> None:
        super().__init__()
        self.heads, self.thinning = heads, thinning
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor, position: Tensor, forbidden: Tensor | None) -> Tensor:
        """Let tokens x (B, N, D) look at memory (B, N, D); where ``forbidden`` (N, N) says so, they may not."""
        images, count, dim = x.shape
        made = (self.query(x + position), self.key(memory + position), self.value(memory))
        query, key, value = (m.view(images, count, self.heads, -1).transpose(1, 2) for m in made)  # (B, heads, N, d)
        allowed = None if forbidden is None else ~forbidden
        thinning = self.thinning if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=thinning)
        return self.norm(x + self.dropout(self.out(found.transpose(1, 2).reshape(images, count, dim))))


class FeedForward(nn.Module):
    """The sub-layer that treats every token alone; added and normalised after."""

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.perceptron = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, dim))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.perceptron(x)))


def neighbour_mask(height: int, width: int, size: int) -> Tensor | None:
    """Return (N, N) bool over the N = height * width positions of a grid, row by row: which lie too near.

    Too near are a position itself and those in the ``size`` x ``size`` square around it; on a grid so small that some
    position would have nothing left to look at, the square shrinks. None where nothing may be forbidden at all.
    """
    reach = min(size // 2, (max(height, width) - 2) // 2)
    if size < 1 or reach < 0:
        return None
    down, across = torch.arange(height), torch.arange(width)
    rows = (down[:, None] - down).abs() <= reach
    columns = (across[:, None] - across).abs() <= reach
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(height * width, height * width)
