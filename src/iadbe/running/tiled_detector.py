"""A detector that sees the tiles of a view one by one: one detector for all tiles, or one for each position.

Tiles are images like any others: each has its own rows in the feature store, so another detector on the same tiles
needs no pass through the backbone. Of an image, no more than a row of tiles is computed at a time, and not more than
``PIXELS``, so that memory does not grow with it but for its pixels and its map.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from iadbe.data.images import Batch, Images, View, pixel_digest
from iadbe.data.tiles import Stitched, Tile, by_position, rows_of, tile_score, tiled, tiles_of
from iadbe.detector import Backbone, Detector, Prediction
from iadbe.errors import BadData
from iadbe.protocol import Tiling
from iadbe.running.tiles_in_graphs import StitchedImages, tile_scores

PIXELS = 2**21  # of the tiles that are computed at a time: 8 of 512 x 512


class TiledDetector(Detector):
    """Fits and applies a detector to the tiles of images, and puts maps and scores together."""

    def __init__(self, detector: Detector, view: View, tiling: Tiling) -> None:
        """Wrap a detector.

        Args:
            detector: not yet fitted
            view: of the whole images
            tiling: how it is cut into tiles
        """
        super().__init__()
        self.tiling, self.view = tiling, view
        for name in ("kind", "version", "foreign", "needs", "can", "not_exportable"):
            setattr(self, name, getattr(detector, name))
        self.tiles = tiles_of(view.shape, tiling)
        frozen = {id(m): m for m in detector.modules() if isinstance(m, Backbone)}  # one for all positions
        others = [copy.deepcopy(detector, dict(frozen)) for _ in self.tiles[1:]] if tiling.by_position else []
        self.parts = nn.ModuleList([detector, *others])
        for part in self._detectors:
            part.view = View(self.tiles[0].height, resize_width=self.tiles[0].width)

    @property
    def _detectors(self) -> list[Detector]:
        return [part for part in self.parts if isinstance(part, Detector)]

    @property
    def keeps_what_it_learnt(self) -> bool:
        return self._detectors[0].keeps_what_it_learnt

    def fit(self, train: Images, rng: np.random.Generator) -> None:
        for part, own in self._shares(train):
            part.fit(own, rng)

    def update(self, train: Images, rng: np.random.Generator) -> None:
        for part, own in self._shares(train):
            part.update(own, rng)

    def _shares(self, train: Images) -> list[tuple[Detector, Images]]:
        """Return what each detector learns from. A position in which no pixel counts has nothing to learn."""
        tiles, parts = tiled(train, self.tiling), self._detectors
        if not self.tiling.by_position:
            return [(parts[0], tiles)]
        return [(parts[number], own) for number, own in sorted(by_position(tiles).items())]

    def predict(self, batch: Batch) -> Prediction:
        """Score images of [0, 1], or those of :meth:`Images.in_bytes`."""
        if torch.compiler.is_exporting():
            return self._of_all_images(batch)
        found = [self._one(batch, i) for i in range(len(batch))]
        maps = [map_ for _, map_ in found if map_ is not None]
        score = torch.tensor([score for score, _ in found], dtype=torch.float32)
        if not maps:
            return Prediction(score, None)
        return Prediction(score, torch.from_numpy(maps[0][None] if len(maps) == 1 else np.stack(maps)))

    def _one(self, batch: Batch, i: int) -> tuple[float, np.ndarray | None]:
        """Return score and map (H, W) of one image of a batch."""
        shape = (batch.image.shape[-2], batch.image.shape[-1])
        whole, scores = Stitched(shape, self.tiling), []
        for part, tiles in self._groups(None if batch.region is None else batch.region[i]):
            own = part.predict(_cut(batch, i, tiles))
            scores += own.score.float().cpu().tolist()
            if own.map is not None:
                for tile, map_ in zip(tiles, own.map.float().cpu().numpy(), strict=True):
                    whole.add(tile, map_)
        if not scores:
            raise BadData(f"no pixel of {batch.id[i] if batch.id else 'an image'} counts.")
        return tile_score(scores, self.tiling), whole.map() if whole.weight.any() else None

    def _of_all_images(self, batch: Batch) -> Prediction:
        """Score the same tiles of all images (B, 3, H, W), as an exported graph needs it: a row of tiles at a time.

        Tiles in which no pixel counts are computed too, but neither their scores nor their maps count.
        """
        whole = StitchedImages((batch.image.shape[-2], batch.image.shape[-1]), self.tiling)
        scores, counted = [], []
        for part, tiles in self._groups(None):
            image = torch.cat([batch.image[..., *tile.slices] for tile in tiles])  # (tiles * B, 3, h, w)
            counts, region = torch.ones_like(image[:, 0, 0, 0], dtype=torch.bool), None
            if batch.region is not None:
                region = torch.cat([batch.region[..., *tile.slices] for tile in tiles])
                counts = region.flatten(1).any(1)
                region = region | ~counts[:, None, None]
            found = part.predict(Batch(image, region=region))
            counts = counts.unflatten(0, (len(tiles), -1))
            scores.append(found.score.float().unflatten(0, (len(tiles), -1)))
            counted.append(counts)
            if found.map is not None:
                for tile, own, map_ in zip(tiles, counts, found.map.unflatten(0, (len(tiles), -1)), strict=True):
                    whole.add(tile, map_.float(), own)
        score = tile_scores(torch.cat(scores).T, torch.cat(counted).T, self.tiling)
        return Prediction(score, whole.maps())

    def _groups(self, region: Tensor | None) -> Iterator[tuple[Detector, list[Tile]]]:
        """Yield what a detector sees at a time, without tiles in which no pixel of ``region`` (H, W) counts."""
        parts = self._detectors
        for row in rows_of(self.tiles):
            counted = [n for n in row if region is None or bool(region[self.tiles[n].slices].any())]
            if self.tiling.by_position:
                yield from ((parts[n], [self.tiles[n]]) for n in counted)
                continue
            together = max(1, PIXELS // (self.tiles[0].height * self.tiles[0].width))
            for first in range(0, len(counted), together):
                yield parts[0], [self.tiles[n] for n in counted[first : first + together]]

    def merge(self, others: Sequence[Self]) -> None:
        for number, part in enumerate(self._detectors):
            part.merge([other._detectors[number] for other in others])


def _cut(batch: Batch, i: int, tiles: Sequence[Tile]) -> Batch:
    """Return tiles of one image of a batch as a batch of their own."""

    def cut(values: Tensor | None) -> Tensor | None:
        return None if values is None else torch.stack([values[i][..., *tile.slices] for tile in tiles])

    image = cut(batch.image)
    assert image is not None
    whole = image.dtype == torch.uint8
    keys = None
    if batch.keys is not None:
        pixels = (image if whole else (image * 255).round().to(torch.uint8)).permute(0, 2, 3, 1).cpu().numpy()
        keys = tuple(pixel_digest(np.ascontiguousarray(one)) for one in pixels)
    names = tuple(f"{batch.id[i]}#{tile.top},{tile.left}" for tile in tiles) if batch.id else ()
    category = (batch.category[i],) * len(tiles) if batch.category else ()
    image = image.float().div_(255) if whole else image
    return Batch(image, names, category, cut(batch.depth), cut(batch.points), keys, cut(batch.region))
