"""Frozen features of a training set, kept in memory from one epoch to the next while they fit.

A fit that shows every image a hundred times needs the backbone once. Between fits it is the feature store that
remembers; within one, memory is quicker still, and it works where the store is off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iadbe.data.images import Batch

BUDGET = 2**29  # bytes


class FeatureCache:
    """Asks ``compute`` for the features (B, C, h, w) of a batch's images, of each image once."""

    def __init__(self, compute: Callable[[Batch], list[Tensor]], budget: int = BUDGET) -> None:
        self.compute, self.budget = compute, budget
        self._rows: dict[str, list[Tensor]] = {}
        self._bytes = 0

    def __call__(self, batch: Batch) -> list[Tensor]:
        """Return the features of each layer; those of an augmented batch are never held."""
        if batch.keys is not None and all(key in self._rows for key in batch.keys):
            return [torch.stack(layer) for layer in zip(*(self._rows[key] for key in batch.keys), strict=True)]
        found = self.compute(batch)
        for key, *row in zip(batch.keys or (), *found, strict=bool(batch.keys)):
            size = sum(r.numel() * r.element_size() for r in row)
            if key not in self._rows and self._bytes + size <= self.budget:
                self._rows[key] = [r.detach().clone() for r in row]
                self._bytes += size
        return found
