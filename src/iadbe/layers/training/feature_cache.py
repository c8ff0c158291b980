"""A cache in memory for the frozen features of a training set, from one epoch to the next.

With it, a fit of many epochs runs the backbone once per image. The feature store on disk
(:mod:`iadbe.networks.feature_store`) does so between fits. The cache is faster and works where the store is off.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from iadbe.data.images import Batch

BUDGET = 2**29  # bytes


class FeatureCache:
    """Calls ``compute`` once for each image, as long as the features fit into ``budget`` bytes.

    ``compute`` returns the features of a batch as layers [(B, C, h, w), ...].
    """

    def __init__(self, compute: Callable[[Batch], list[Tensor]], budget: int = BUDGET) -> None:
        self.compute, self.budget = compute, budget
        self._rows: dict[str, list[Tensor]] = {}
        self._bytes = 0

    def __call__(self, batch: Batch) -> list[Tensor]:
        """Return the features of each layer; those of an augmented batch (without keys) are never cached."""
        if batch.keys is not None and all(key in self._rows for key in batch.keys):
            return [torch.stack(layer) for layer in zip(*(self._rows[key] for key in batch.keys), strict=True)]
        found = self.compute(batch)
        for key, *row in zip(batch.keys or (), *found, strict=bool(batch.keys)):
            size = sum(r.numel() * r.element_size() for r in row)
            if key not in self._rows and self._bytes + size <= self.budget:
                self._rows[key] = [r.detach().clone() for r in row]
                self._bytes += size
        return found
