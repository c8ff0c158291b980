"""Laws about tiles: every detector learns from and scores the tiles of a view.

Images are the toy ones at 96 x 96 in four tiles of 64 x 64 with random weights, as in the other laws about detectors.
"""

from unittest import mock

import numpy as np
import pytest
import torch

from iadbe.data.images import Batch, View
from iadbe.data.tiles import TiledDataset, tiles_of
from iadbe.errors import Missing
from iadbe.exporting.program import for_export
from iadbe.protocol import Tiling
from iadbe.registry import load, names
from iadbe.running.tiled_detector import TiledDetector
from laws.test_detectors import images, make, scored

VIEW, TILING = View(96), Tiling(64, 32)
TILES = len(tiles_of(VIEW.shape, TILING))


FROZEN = ("dfkde", "padim", "patchcore")  # a density of images, Gaussians of positions, a bank of patches
TRAINED = ("autoencoder", "stfpm")
LONG = ("anogan", "btf", "igd", "rd_plus", "realnet", "winclip")


def tiled(name, by_position=False):
    detector = TiledDetector(make(name), VIEW, Tiling(TILING.side, TILING.overlap, by_position)).eval()
    detector.fit(images(name, view=VIEW, count=4), np.random.default_rng(0))
    return detector.eval()


def check(detector, name):
    test = images(name, split="test", count=2, view=VIEW)
    score, maps = scored(detector, test, size=2)
    assert score.shape == (len(test),)
    assert torch.isfinite(score).all()
    assert (maps is None) == ("localise" not in detector.can)
    if maps is not None:
        assert maps.shape == (len(test), 96, 96)
        assert torch.isfinite(maps).all()
    again, _ = scored(detector, test, size=1)
    torch.testing.assert_close(score, again, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in names("detectors")]
)
def test_one_detector_of_all_tiles(name):
    try:
        load("detectors", name)
    except Missing as error:  # an extra
        pytest.skip(str(error))
    check(tiled(name), name)


@pytest.mark.parametrize("name", FROZEN)
def test_a_detector_of_each_position(name):
    detector = tiled(name, by_position=True)
    assert len(detector.parts) == TILES
    check(detector, name)


@pytest.mark.parametrize("name", TRAINED)
def test_training_draws_tiles_at_random_and_prediction_sees_all(name, monkeypatch):
    read, original = [], TiledDataset.image
    monkeypatch.setattr(TiledDataset, "image", lambda self, tile: read.append(tile.id) or original(self, tile))
    detector = tiled(name)
    train = images(name, view=VIEW, count=4)
    assert set(read) == {f"{sample.id}#{n}" for sample, _ in train.items for n in range(TILES)}
    first = [tile.rpartition("#")[0] for tile in dict.fromkeys(read)]
    assert first != sorted(first), "tiles of an image are not learnt one after the other"
    part = detector.parts[0]
    seen, predict = [], part.predict
    monkeypatch.setattr(part, "predict", lambda batch: seen.append(len(batch)) or predict(batch))
    scored(detector, images(name, split="test", count=1, view=VIEW))
    assert sum(seen) == TILES


@pytest.mark.parametrize(("name", "by_position"), [*((name, False) for name in FROZEN + TRAINED), ("padim", True)])
def test_the_form_for_export_scores_as_the_usual_one(name, by_position):
    """Also where nothing counts in some tiles."""
    detector = tiled(name, by_position)
    own = for_export(detector)
    image = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    counts = torch.ones(2, 96, 96, dtype=torch.bool)
    counts[0, :, 20:], counts[1, :70] = False, False
    for region in (None, counts):
        batch = Batch(image, region=region)
        with torch.no_grad():
            expected = detector.predict(batch)
            with mock.patch("torch.compiler.is_exporting", return_value=True):
                found = own.predict(batch)
        torch.testing.assert_close(found.score, expected.score, rtol=1e-4, atol=1e-5)
        if expected.map is not None:
            torch.testing.assert_close(found.map, expected.map, rtol=1e-4, atol=1e-4)
