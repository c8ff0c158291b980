"""The patch features of all training images, and the coreset of them that a memory bank keeps.

Paper: Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022, 2106.08265 (algorithm 1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from iadbe import progress
from iadbe.data.images import Batch, Images
from iadbe.layers.features.patches import flattened
from iadbe.layers.features.region import at_grid, joined
from iadbe.layers.memory_bank.coreset import distances_to, greedy_coreset, random_projection

MEMORY = 2**30  # bytes of full vectors kept beside their projections; if there are more, they are read again
BATCH = 16
ANCHORS = 10  # random vectors from which the approximate selection starts

Selection = Literal["greedy", "approximate", "random"]
Embed = Callable[[Batch], Tensor]  # -> (B, D, h, w)


class PatchBank:
    """One vector per position of every image, position after position, image after image.

    Attributes:
        projected: all vectors (N, D') after the random projection
        counts: which of them may be chosen (N,) bool, by the region of their batch; None: all
        images: number of training images
        grid: rows and columns of positions
    """

    def __init__(
        self,
        train: Images,
        embed: Embed,
        projection: int,
        source: torch.Generator,
        views: Sequence[Callable[[Batch], Batch]] = (),
    ) -> None:
        """Read all images once.

        Args:
            train: images to read
            embed: from a batch to its patch features
            projection: dimensions of the random projection; 0, or as many as the vectors have: none
            source: generator on the CPU that draws the projection
            views: what is made of a batch, such as its rotations, all of which are embedded; none: the batch itself
        """
        self.train, self.embed, self.views = train, embed, views or (lambda batch: batch,)
        self.images = len(train)
        self.grid = (0, 0)  # rows and columns of positions
        self.projected = torch.empty(0)
        self.full: Tensor | None = None
        self.counts: Tensor | None = None
        directions = None
        for start, shown, vectors, counts in self._read("features"):
            total, dim = vectors.shape[0], vectors.shape[1]
            if start == 0:
                size = total // shown * self.images
                reduced = 0 < projection < dim
                directions = random_projection(torch.eye(dim), projection, source) if reduced else None  # (D, D')
                self.projected = torch.empty(size, projection if reduced else dim)
                keep = reduced and size * dim * 4 <= MEMORY
                self.full = torch.empty(size, dim) if keep else None if reduced else self.projected
            stop = start + total
            if counts is not None:
                self.counts = torch.ones(len(self.projected), dtype=torch.bool) if self.counts is None else self.counts
                self.counts[start:stop] = counts
            self.projected[start:stop] = vectors if directions is None else vectors @ directions
            if directions is not None and self.full is not None:
                self.full[start:stop] = vectors

    def take(self, chosen: Tensor) -> Tensor:
        """Return the full vectors (n, D) of the indices ``chosen`` (n,), in that order, on the device of the images."""
        chosen = chosen.cpu()
        if self.full is not None:
            return self.full[chosen].to(self.train.device)
        ordered, order = chosen.sort()
        parts = []
        for start, _, vectors, _ in self._read("bank"):
            inside = ordered[(ordered >= start) & (ordered < start + len(vectors))]
            parts.append(vectors[inside - start])
        found = torch.cat(parts)
        back = torch.empty_like(found)
        back[order] = found
        return back.to(self.train.device)

    def coreset(
        self, share: float, rng: np.random.Generator, selection: Selection = "greedy", among: Tensor | None = None
    ) -> Tensor:
        """Return the indices (M,) of ``share`` of all vectors that count, in the order in which they were chosen.

        Args:
            share: of all vectors that count, above 0 and up to 1; at least one vector is chosen
            rng: draws the vector that comes first
            selection: greedy (always the vector farthest from all chosen so far), approximate (the same, from the mean
                distance to ten random vectors, as in PatchCore's code) or random
            among: indices (N',) of the vectors that may be chosen; None: all
        """
        total = len(self.projected)
        if self.counts is not None:
            total = int(self.counts.sum())
            among = self.counts.nonzero()[:, 0] if among is None else among[self.counts[among]]
        size = len(self.projected) if among is None else len(among)
        count = min(max(1, round(share * total)), size)
        if selection == "random":
            chosen = torch.from_numpy(rng.choice(size, count, replace=False))
        else:
            points = (self.projected if among is None else self.projected[among]).to(self.train.device)
            start: int | Tensor = int(rng.integers(size))
            if selection == "approximate":
                anchors = rng.choice(size, min(ANCHORS, size), replace=False).tolist()
                start = torch.stack([distances_to(points, points[anchor]) for anchor in anchors]).mean(0)
            chosen = greedy_coreset(points, count, start=start, progress=partial(progress.report, "coreset")).cpu()
        return chosen if among is None else among[chosen]

    def _read(self, phase: str) -> Iterator[tuple[int, int, Tensor, Tensor | None]]:
        """Yield (index of the first vector, number of images, vectors (n, D), which count (n,)) batch by batch."""
        start = done = 0
        for batch in self.train.batches(BATCH):
            shown = [view(batch) for view in self.views]
            features = torch.cat([self.embed(one) for one in shown])
            self.grid = (features.shape[2], features.shape[3])
            vectors = flattened(features).cpu()
            counts = at_grid(joined(*((one.image, one.region) for one in shown)), self.grid)
            yield start, len(batch), vectors, None if counts is None else counts.flatten().cpu()
            start += len(vectors)
            done += len(batch)
            progress.report(phase, done, len(self.train))
