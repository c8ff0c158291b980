"""Maps and scores of tiles in an exported graph: what :mod:`iadbe.data.tiles` does, for all images at a time.

A graph takes any number of images and cannot leave a tile out, so tiles in which no pixel of an image counts have no
weight.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from iadbe.data.tiles import Tile, ramp
from iadbe.protocol import Tiling


class StitchedImages:
    """The maps of images in a view, put together from those of their tiles: see :class:`iadbe.data.tiles.Stitched`.

    Tiles come row by row. A row is put together first, so that few tensors have the size of the view.
    """

    def __init__(self, shape: tuple[int, int], tiling: Tiling) -> None:
        """Take height and width of the view, and the tiling."""
        self.height, self.width = shape
        self.overlap = tiling.overlap
        self.rows: dict[int, tuple[Tensor, Tensor]] = {}  # by their first line: weighted sums and weights (B, h, W)

    def add(self, tile: Tile, maps: Tensor, counted: Tensor) -> None:
        """Add the maps (B, h, w) of a tile, of the images for which it is ``counted`` (B,)."""
        down, across = (torch.from_numpy(ramp(side, self.overlap)).to(maps) for side in (tile.height, tile.width))
        weight = (down[:, None] * across) * counted[:, None, None]  # (B, h, w)
        margins = (tile.left, self.width - tile.left - tile.width)
        total, weight = F.pad(weight * maps, margins), F.pad(weight, margins)
        if tile.top in self.rows:
            before = self.rows[tile.top]
            total, weight = before[0] + total, before[1] + weight
        self.rows[tile.top] = (total, weight)

    def maps(self) -> Tensor | None:
        """Return the maps (B, H, W); where no tile counts they have the lowest value of the others. None: no maps."""
        sums: list[Tensor] = []
        for top, row in self.rows.items():
            whole = [F.pad(part, (0, 0, top, self.height - top - part.shape[1])) for part in row]
            sums = [a + b for a, b in zip(sums, whole, strict=True)] if sums else whole
        if not sums:
            return None
        total, weight = sums
        seen = weight > 0
        maps = total / weight.where(seen, 1)
        lowest = maps.masked_fill(~seen, torch.inf).amin((1, 2), keepdim=True)
        return torch.where(seen, maps, lowest)


def tile_scores(scores: Tensor, counted: Tensor, tiling: Tiling) -> Tensor:
    """Return the scores (B,) of images, given those of their tiles (B, T): see :func:`iadbe.data.tiles.tile_score`.

    Tiles count where ``counted`` (B, T) is true.
    """
    tiles = scores.shape[1]
    falling = scores.masked_fill(~counted, -torch.inf).sort(dim=1, descending=True).values
    numbers = torch.tensor([max(1, round(tiling.top * count)) for count in range(tiles + 1)], device=scores.device)
    number = numbers[counted.sum(1, keepdim=True)]  # (B, 1)
    taken = torch.arange(tiles, device=scores.device) < number
    return falling.where(taken, 0).sum(1) / number[:, 0]
