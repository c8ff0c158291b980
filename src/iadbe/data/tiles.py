"""Tiles: equal, overlapping parts of a view, and how their anomaly maps become one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from threading import Lock
from typing import NamedTuple

import numpy as np

from iadbe.data.images import Images, View, read_depth_view, read_mask_view, read_region_view, read_view
from iadbe.dataset import Dataset
from iadbe.protocol import AUTO, Tiling
from iadbe.types import Sample, TrainingImage, TrainingLabel

SIDES = range(256, 513, 32)  # of automatic tiles. Larger ones would need more memory than a batch of 16 should take
LEAST = 1e-6  # weight of a tile's border, which counts where no other tile shows it


class Tile(NamedTuple):
    """One part of a view: its pixels are rows ``top`` to ``top + height``, columns ``left`` to ``left + width``."""

    top: int
    left: int
    height: int
    width: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The rows and columns."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


def tiles_of(shape: tuple[int, int], tiling: Tiling) -> list[Tile]:
    """Return the tiles of a view of (height, width), row by row.

    They all have the same size: ``tiling.side``, or that of the view where it is smaller. They are evenly spaced and
    overlap by at least ``tiling.overlap`` pixels.
    """
    height, width = (min(tiling.side, side) for side in shape)
    rows, columns = (_starts(whole, side, tiling.overlap) for whole, side in zip(shape, (height, width), strict=True))
    return [Tile(top, left, height, width) for top in rows for left in columns]


def settled(tiling: Tiling, shape: tuple[int, int]) -> Tiling:
    """Return a tiling of a view of (height, width) whose side and overlap are known.

    Automatic tiles have the side from 256 to 512 pixels whose tiles have the fewest pixels together, of equals the
    largest, and overlap by at least an eighth of it. A view of up to 512 pixels is one tile.
    """
    if tiling.side != AUTO:
        return tiling
    possible = [replace(tiling, side=side, overlap=side // 8) for side in reversed(SIDES)]
    return min(possible, key=lambda one: sum(tile.height * tile.width for tile in tiles_of(shape, one)))


def _starts(whole: int, side: int, overlap: int) -> list[int]:
    if whole <= side:
        return [0]
    count = -(-(whole - overlap) // (side - overlap))
    return [round(start) for start in np.linspace(0, whole - side, count)]


class Stitched:
    """The map of a view, put together from those of its tiles.

    Where tiles overlap, the map goes over from one to the next linearly, in the middle half of the overlap: no seam
    shows, and the outer quarter of a tile, which its border may affect, does not count where another tile shows it.
    """

    def __init__(self, shape: tuple[int, int], tiling: Tiling) -> None:
        self.overlap = tiling.overlap
        self.total = np.zeros(shape, np.float32)
        self.weight = np.zeros(shape, np.float32)

    def add(self, tile: Tile, map_: np.ndarray) -> None:
        """Add the map of a tile, (h, w) float32."""
        down, across = (ramp(side, self.overlap) for side in (tile.height, tile.width))
        weight = down[:, None] * across
        self.total[tile.slices] += weight * map_
        self.weight[tile.slices] += weight

    def map(self) -> np.ndarray:
        """Return the map, (H, W) float32; where no tile was added it has the lowest value of the others.

        To be called once, at the end: the map is computed in place.
        """
        seen = self.weight > 0
        map_ = np.divide(self.total, self.weight, out=self.total, where=seen)
        if not seen.all():
            map_[~seen] = map_[seen].min()
        return map_


def ramp(side: int, overlap: int) -> np.ndarray:
    """Return the weights (side,) along one axis: almost 0 in a quarter of the overlap, then rising to 1."""
    place = np.arange(side, dtype=np.float32) + 0.5
    margin = overlap / 4
    rising = (np.minimum(place, side - place) - margin) / max(overlap - 2 * margin, 1e-6)
    return rising.clip(LEAST, 1.0).astype(np.float32)


def tile_score(scores: Sequence[float] | np.ndarray, tiling: Tiling) -> float:
    """Return an image's score from those of its tiles: the highest, or the mean of the highest share."""
    falling = np.sort(np.asarray(scores, np.float64))[::-1]
    return float(falling[: max(1, round(tiling.top * falling.size))].mean())


class TiledDataset(Dataset):
    """The tiles of some images in a view, as images of their own. Tiles in which no pixel counts are left out."""

    filled = True  # in the view

    def __init__(self, images: Images, tiling: Tiling) -> None:
        """List the tiles.

        Args:
            images: their view is cut into tiles
            tiling: size and overlap
        """
        self.dataset, self.outer = images.dataset, images.view
        self.root = images.dataset.root
        self.gives = images.dataset.gives
        self.tiles = tiles_of(images.view.shape, tiling)
        self.view = View(self.tiles[0].height, resize_width=self.tiles[0].width)
        self.items: list[TrainingImage] = []
        self._reading = Lock()
        self._of: dict[str, tuple[Sample, Tile]] = {}
        for item in images.items:
            for number, tile in enumerate(self.tiles):
                self._add(item, number, tile)

    def _add(self, item: TrainingImage, number: int, tile: Tile) -> None:
        sample, label = item
        if label is TrainingLabel.ANOMALOUS:  # which of its tiles show the defect is not known
            return
        region = read_region_view(self.dataset, sample, self.outer)
        if region is not None and not region[tile.slices].any():
            return
        if label is TrainingLabel.MASKED and not read_mask_view(self.dataset, sample, self.outer)[tile.slices].any():
            label = TrainingLabel.NORMAL
        name = f"{sample.id}#{number}"
        self._of[name] = (sample, tile)
        group = sample.group_id if label is TrainingLabel.NORMAL else sample.group
        own = Sample(name, sample.category, sample.split, sample.defect, name, group=group)
        self.items.append(TrainingImage(own, label))

    @property
    def categories(self) -> tuple[str, ...]:
        return self.dataset.categories

    def samples(self) -> tuple[Sample, ...]:
        return tuple(item.sample for item in self.items)

    def image(self, sample: Sample) -> np.ndarray:
        whole, tile = self._of[sample.id]
        with self._reading:  # several tiles of an image are read at a time, and it is decoded once
            pixels = read_view(self.dataset, whole, self.outer)[0]
        return pixels[tile.slices]

    def mask(self, sample: Sample) -> np.ndarray | None:
        whole, tile = self._of[sample.id]
        return read_mask_view(self.dataset, whole, self.outer)[tile.slices]

    def region(self, sample: Sample) -> np.ndarray | None:
        whole, tile = self._of[sample.id]
        region = read_region_view(self.dataset, whole, self.outer)
        return None if region is None else region[tile.slices]

    def depth(self, sample: Sample) -> np.ndarray | None:
        whole, tile = self._of[sample.id]
        planes = read_depth_view(self.dataset, whole, self.outer)
        return np.ascontiguousarray(planes[-1][tile.slices])

    def points(self, sample: Sample) -> np.ndarray | None:
        whole, tile = self._of[sample.id]
        planes = read_depth_view(self.dataset, whole, self.outer)
        return np.ascontiguousarray(np.moveaxis(planes[:, *tile.slices], 0, 2)) if len(planes) == 3 else None


def tiled(images: Images, tiling: Tiling) -> Images:
    """Return the tiles of images as images of their own."""
    dataset = TiledDataset(images, tiling)
    return Images(dataset, dataset.items, dataset.view, images.device, images.depth)


def by_position(tiles: Images) -> dict[int, Images]:
    """Return the tiles of each position that has any; positions are counted row by row."""
    places: dict[int, list[int]] = {}
    for i, (sample, _) in enumerate(tiles.items):
        places.setdefault(position(sample), []).append(i)
    return {number: tiles.subset(own) for number, own in places.items()}


def position(tile: Sample) -> int:
    """Return which of its view's tiles a sample of :class:`TiledDataset` is, counted row by row."""
    return int(tile.id.rpartition("#")[2])


def rows_of(tiles: Sequence[Tile]) -> Iterator[list[int]]:
    """Yield the numbers of the tiles of each row."""
    row: list[int] = []
    for number, tile in enumerate(tiles):
        if row and tile.top != tiles[row[-1]].top:
            yield row
            row = []
        row.append(number)
    if row:
        yield row
