import numpy as np
import pytest

from drawn_images import images, parts
from iadbe.data.tiles import (
    Stitched,
    TiledDataset,
    by_position,
    position,
    rows_of,
    settled,
    tile_score,
    tiled,
    tiles_of,
)
from iadbe.data.view import View
from iadbe.protocol import AUTO, Tiling
from iadbe.types import TrainingLabel


def test_tiles_cover_the_view_and_overlap():
    tiles = tiles_of((100, 260), Tiling(100, 20))
    assert [(t.top, t.left, t.height, t.width) for t in tiles] == [
        (0, 0, 100, 100),
        (0, 80, 100, 100),
        (0, 160, 100, 100),
    ]
    seen = np.zeros((130, 170), int)
    for tile in tiles_of(seen.shape, Tiling(64, 16)):
        seen[tile.slices] += 1
    assert seen.min() == 1
    assert [len(row) for row in rows_of(tiles_of(seen.shape, Tiling(64, 16)))] == [4, 4, 4]


def test_a_view_smaller_than_a_tile_is_one_tile():
    assert tiles_of((50, 40), Tiling(64, 8)) == [(0, 0, 50, 40)]


@pytest.mark.parametrize(
    ("shape", "found", "count"),
    [
        ((256, 256), "512/64", 1),
        ((512, 400), "512/64", 1),
        ((1024, 1024), "384/48", 9),
        ((2048, 2048), "384/48", 36),
        ((512, 2048), "512/64", 5),
        ((6000, 8000), "384/48", 432),
    ],
)
def test_automatic_tiles_follow_from_the_view(shape, found, count):
    tiling = settled(Tiling(AUTO, 0, by_position=True), shape)
    assert str(tiling) == f"{found}/position"
    assert len(tiles_of(shape, tiling)) == count


def test_tiles_of_a_known_side_stay_as_they_are():
    assert settled(Tiling(64, 8), (1000, 1000)) == Tiling(64, 8)


@pytest.mark.parametrize("overlap", [0, 1, 16, 32])
def test_what_all_tiles_agree_on_is_the_map(overlap):
    rng = np.random.default_rng(0)
    whole, tiling = rng.normal(size=(150, 200)).astype(np.float32), Tiling(64, overlap)
    stitched = Stitched(whole.shape, tiling)
    for tile in tiles_of(whole.shape, tiling):
        stitched.add(tile, whole[tile.slices])
    np.testing.assert_allclose(stitched.map(), whole, atol=1e-5)


def test_what_is_wrong_at_the_border_of_a_tile_leaves_no_seam():
    """A quarter of the overlap does not count where another tile shows it."""
    whole, tiling = np.zeros((160, 160), np.float32), Tiling(64, 16)
    stitched = Stitched(whole.shape, tiling)
    for tile in tiles_of(whole.shape, tiling):
        own = np.zeros((64, 64), np.float32)
        own[:4], own[-4:], own[:, :4], own[:, -4:] = 9, 9, 9, 9
        stitched.add(tile, own)
    inside = stitched.map()[4:-4, 4:-4]
    assert np.abs(inside).max() < 1e-4


def test_from_one_tile_to_the_next_the_map_goes_over_linearly():
    stitched = Stitched((32, 48), Tiling(32, 16))
    left, right = tiles_of((32, 48), Tiling(32, 16))
    stitched.add(left, np.zeros((32, 32), np.float32))
    stitched.add(right, np.ones((32, 32), np.float32))
    across = stitched.map()[16]
    np.testing.assert_allclose(across[:20], 0, atol=1e-5)
    np.testing.assert_allclose(across[28:], 1, atol=1e-5)
    np.testing.assert_allclose(np.diff(across[20:28]), 1 / 8, atol=1e-5)


def test_where_no_tile_was_added_the_map_is_lowest():
    stitched = Stitched((32, 64), Tiling(32, 0))
    stitched.add(tiles_of((32, 64), Tiling(32, 0))[0], np.full((32, 32), 3, np.float32) + np.eye(32, dtype=np.float32))
    assert (stitched.map()[:, 32:] == 3).all()


def test_scores_of_images():
    scores = [1, 5, 2, 4, 3, 0, 0, 0, 0, 0]
    assert tile_score(scores, Tiling()) == 5
    assert tile_score(scores, Tiling(top=0.2)) == 4.5
    assert tile_score(scores, Tiling(top=1)) == 1.5


class TestTiledDataset:
    def test_tiles_are_parts_of_the_view(self):
        whole = images(parts(2), view=View(64))
        own = tiled(whole, Tiling(32, 8))
        assert len(own) == 2 * 9
        assert own.view.shape == (32, 32)
        (batch,) = whole.batches(2)
        tiles = next(iter(own.batches(18)))
        positions = tiles_of((64, 64), Tiling(32, 8))
        for number, image in enumerate(tiles.image):
            expected = batch.image[number // 9][:, *positions[number % 9].slices]
            assert (image == expected).all()

    def test_some_positions_alone(self):
        own = by_position(tiled(images(parts(3), view=View(64)), Tiling(32, 8)))[4]
        assert len(own) == 3
        assert {position(i.sample) for i in own.items} == {4}

    def test_images_keep_their_groups(self):
        own = tiled(images(parts(2), view=View(64)), Tiling(32, 8))
        assert len({i.sample.group_id for i in own.items}) == 2
        rest, held = own.split(0.5, np.random.default_rng(0))
        assert not {i.sample.group_id for i in rest.items} & {i.sample.group_id for i in held.items}

    def test_labels_follow_masks(self):
        whole = images(parts(2), view=View(64))
        mask = np.zeros((64, 64), bool)
        mask[2:6, 2:6] = True
        whole.dataset.mask = lambda sample: mask
        whole.items = tuple(i._replace(label=TrainingLabel.MASKED) for i in whole.items)
        labels = [i.label for i in TiledDataset(whole, Tiling(32, 8)).items]
        assert labels[:9] == [TrainingLabel.MASKED] + [TrainingLabel.NORMAL] * 8
        whole.items = tuple(i._replace(label=TrainingLabel.ANOMALOUS) for i in whole.items)
        assert TiledDataset(whole, Tiling(32, 8)).items == []

    def test_tiles_in_which_nothing_counts_are_left_out(self):
        whole = images(parts(1), view=View(64))
        region = np.zeros((64, 64), bool)
        region[:20] = True
        whole.dataset.region = lambda sample: region
        assert len(tiled(whole, Tiling(32, 8))) == 6
