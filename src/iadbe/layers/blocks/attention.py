"""Transformer layers over the positions of a grid: linear attention, and softmax attention with a neighbour mask.

Paper: Vaswani et al., "Attention Is All You Need", NeurIPS 2017; Katharopoulos et al., "Transformers are RNNs", ICML
    2020, 2006.16236 (linear attention); You et al., "UniAD", NeurIPS 2022, 2206.03687 (neighbour mask, section 3.2).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LinearAttention(nn.Module):
    """Self-attention with φ(q)·φ(k), φ = elu + 1, instead of exp(q·k): the cost grows with N, not N²."""

    renamed_tensors = {"mixed": "qkv"}

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        images, count, dim = x.shape
        split = self.qkv(x).view(images, count, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        query, key, value = F.elu(split[0]) + 1, F.elu(split[1]) + 1, split[2]  # (B, heads, N, d)
        summary = key.transpose(-2, -1) @ value  # (B, heads, d, d)
        total = query @ key.sum(-2)[..., None]  # (B, heads, N, 1)
        return self.out((query @ summary / total).transpose(1, 2).reshape(images, count, dim))


class LinearBlock(nn.Module):
    """A transformer block with linear attention and layer norms before attention and perceptron (pre-norm)."""

    renamed_tensors = {"before": "norm1", "between": "norm2", "perceptron": "mlp"}

    def __init__(self, dim: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim, eps=1e-8), LinearAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=1e-8)
        self.mlp = nn.Sequential(nn.Linear(dim, ratio * dim), nn.GELU(), nn.Linear(ratio * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens (B, N, D) to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class AttentionLayer(nn.Module):
    """Multi-head attention with a residual connection and a layer norm behind it (post-norm).

    ``attention_dropout`` is dropout on the attention weights. Without it the N x N weights are never held at once,
    which on a CPU makes attention six times faster.
    """

    def __init__(self, dim: int, heads: int, dropout: float, attention_dropout: float = 0.0) -> None:
        super().__init__()
        self.heads, self.attention_dropout = heads, attention_dropout
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor, memory: Tensor, position: Tensor, forbidden: Tensor | None) -> Tensor:
        """Return tokens (B, N, D).

        Args:
            x: tokens that give the queries (B, N, D)
            memory: tokens that give keys and values (B, N, D)
            position: encoding that is added to queries and keys
            forbidden: (N, N) bool, pairs of query and key that are masked; None: no mask
        """
        images, count, dim = x.shape
        made = (self.query(x + position), self.key(memory + position), self.value(memory))
        query, key, value = (m.view(images, count, self.heads, -1).transpose(1, 2) for m in made)  # (B, heads, N, d)
        allowed = None if forbidden is None else ~forbidden
        rate = self.attention_dropout if self.training else 0.0
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed, dropout_p=rate)
        return self.norm(x + self.dropout(self.out(found.transpose(1, 2).reshape(images, count, dim))))


class FeedForward(nn.Module):
    """A perceptron over each token, with a residual connection and a layer norm behind it (post-norm)."""

    renamed_tensors = {"perceptron": "mlp"}

    def __init__(self, dim: int, width: int, dropout: float) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(dim, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, dim))
        self.dropout, self.norm = nn.Dropout(dropout), nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x + self.dropout(self.mlp(x)))


def neighbour_mask(height: int, width: int, size: int) -> Tensor | None:
    """Return (N, N) bool over the N = height * width positions of a grid, row by row: the pairs that are masked.

    Masked are the positions in the ``size`` x ``size`` square around a position, itself included. On a grid so small
    that all keys of some position would be masked, the square shrinks. None if no pair can be masked.
    """
    reach = min(size // 2, (max(height, width) - 2) // 2)
    if size < 1 or reach < 0:
        return None
    down, across = torch.arange(height), torch.arange(width)
    rows = (down[:, None] - down).abs() <= reach
    columns = (across[:, None] - across).abs() <= reach
    return (rows[:, None, :, None] & columns[None, :, None, :]).reshape(height * width, height * width)
