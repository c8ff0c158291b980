"""Tiles in an exported graph: as those of :mod:`iadbe.data.tiles`, image by image."""

import numpy as np
import pytest
import torch

from iadbe.data.tiles import Stitched, tile_score, tiles_of
from iadbe.protocol import Tiling
from iadbe.running.tiles_in_graphs import StitchedImages, tile_scores

SHAPE, TILING = (90, 100), Tiling(40, 10)
TILES = tiles_of(SHAPE, TILING)


def test_maps_are_put_together_alike_and_tiles_that_do_not_count_are_left_out():
    maps = torch.randn(len(TILES), 2, 40, 40, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(len(TILES), 2, dtype=torch.bool)
    counted[:4, 1] = False
    together = StitchedImages(SHAPE, TILING)
    for tile, own, counts in zip(TILES, maps, counted, strict=True):
        together.add(tile, own, counts)
    for i in range(2):
        alone = Stitched(SHAPE, TILING)
        for tile, own, counts in zip(TILES, maps, counted, strict=True):
            if counts[i]:
                alone.add(tile, own[i].numpy())
        assert np.allclose(together.maps()[i].numpy(), alone.map(), atol=1e-5)


@pytest.mark.parametrize("top", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_scores_are_put_together_alike(top):
    tiling = Tiling(40, 10, top=top)
    scores = torch.randn(3, 10, generator=torch.Generator().manual_seed(0))
    counted = torch.ones(3, 10, dtype=torch.bool)
    counted[1, 3:9], counted[2, 1:] = False, False
    expected = [tile_score(own[counts].numpy(), tiling) for own, counts in zip(scores, counted, strict=True)]
    assert tile_scores(scores, counted, tiling).tolist() == pytest.approx(expected, abs=1e-6)


def test_detectors_without_maps_give_none():
    assert StitchedImages(SHAPE, TILING).maps() is None
