"""Chunks of rows, which bound the memory of what is computed of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def row_chunks(rows: Tensor, size: int) -> Sequence[Tensor]:
    """Return rows (N, ...) in chunks of ``size``.

    An exported graph takes any number of images, so it cannot repeat its operations for each chunk: it has one chunk.
    """
    return (rows,) if torch.compiler.is_exporting() else rows.split(size)
