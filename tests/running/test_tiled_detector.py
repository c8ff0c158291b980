import time

import numpy as np
import pytest
import torch
from torch import nn

from drawn_images import images, parts
from iadbe import api
from iadbe.data.images import read_view
from iadbe.data.tiles import tiled, tiles_of
from iadbe.data.view import View
from iadbe.detector import Detector, Prediction
from iadbe.detectors.padim import PaDiM
from iadbe.detectors.patchcore import PatchCore
from iadbe.networks import feature_store
from iadbe.networks.feature_store import FeatureStore
from iadbe.protocol import Tiling
from iadbe.running import model_folder, tiled_detector
from iadbe.running.prediction import predict
from iadbe.running.tiled_detector import TiledDetector

TILING = Tiling(32, 8)
SMALL = {"backbone": "resnet10t", "layers": (2,), "weights": "none"}


class Blurred(Detector):
    """A map that a shift of the image shifts: brightness, blurred over 5 pixels."""

    can = frozenset({"localise"})

    def __init__(self):
        super().__init__()
        self.blur = nn.Conv2d(3, 1, 5, padding=2, bias=False)

    def fit(self, train, rng):
        self.seen = len(train)

    def predict(self, batch):
        map_ = self.blur(batch.image)[:, 0]
        return Prediction(map_.amax((1, 2)), map_)


def make(kind, tiling=TILING, view=None, **params):
    torch.manual_seed(0)
    return TiledDetector(kind(**params).eval(), view or View(64), tiling).eval()


def test_a_stitched_map_equals_the_whole_one_where_borders_do_not_matter():
    whole = images(parts(2), view=View(64))
    detector = make(Blurred)
    (batch,) = whole.batches(2)
    with torch.no_grad():
        found, expected = detector.predict(batch), detector.parts[0].predict(batch)
    torch.testing.assert_close(found.map[:, 2:-2, 2:-2], expected.map[:, 2:-2, 2:-2], rtol=0, atol=1e-5)
    assert found.score.shape == (2,)


def test_images_that_stay_in_bytes_are_scored_alike_and_keep_their_address():
    whole = images(parts(1), view=View(64))
    detector = make(PatchCore, coreset=0.5, **SMALL)
    detector.fit(whole, np.random.default_rng(0))
    (plain,), (small,) = whole.batches(1), whole.in_bytes().batches(1)
    assert small.image.dtype == torch.uint8
    with torch.no_grad():
        first, second = detector.predict(plain), detector.predict(small)
    torch.testing.assert_close(first.map, second.map, rtol=0, atol=0)
    torch.testing.assert_close(first.score, second.score, rtol=0, atol=0)
    tiles = tiles_of((64, 64), TILING)
    cut, same = (tiled_detector._cut(one, 0, tiles) for one in (plain, small))
    assert (
        cut.keys
        == same.keys
        == tuple(read_view(t.dataset, s, t.view)[1] for t in [tiled(whole, TILING)] for s, _ in t.items)
    )


def test_a_row_of_tiles_is_computed_in_parts_where_it_is_long(monkeypatch):
    monkeypatch.setattr(tiled_detector, "PIXELS", 2 * 32 * 32)
    detector = make(Blurred)
    assert [len(tiles) for _, tiles in detector._groups(None)] == [2, 1] * 3


def test_several_readers_decode_an_image_once(monkeypatch):
    whole = images(parts(2), view=View(64))
    read, original = [], whole.dataset.image
    monkeypatch.setattr(
        whole.dataset, "image", lambda sample: read.append(sample.id) or time.sleep(0.05) or original(sample)
    )
    assert sum(len(batch) for batch in tiled(whole, TILING).batches(9)) == 18
    assert len(read) == 2


def test_one_detector_learns_from_all_tiles_or_each_from_its_own():
    train = images(parts(3), view=View(64))
    shared, single = make(Blurred), make(Blurred, Tiling(32, 8, by_position=True))
    for detector in (shared, single):
        detector.fit(train, np.random.default_rng(0))
    assert [part.seen for part in shared.parts] == [27]
    assert [part.seen for part in single.parts] == [3] * 9


def test_positions_share_the_backbone():
    detector = make(PaDiM, Tiling(32, 8, by_position=True), dims=8, **SMALL)
    assert len({id(part.backbone) for part in detector.parts}) == 1
    assert len({id(part) for part in detector.parts}) == 9


def test_features_of_tiles_are_read_from_the_store(tmp_path):
    train, test = images(parts(3), view=View(64)), images(parts(2, seed=1), view=View(64))
    with feature_store.using(FeatureStore(tmp_path)) as counters:
        detector = make(PatchCore, coreset=0.5, **SMALL)
        detector.fit(train, np.random.default_rng(0))
        first = predict(detector, test)
        computed = counters.computed
        again = make(PatchCore, coreset=0.5, **SMALL)
        again.fit(train, np.random.default_rng(0))
        second = predict(again, test)
        assert counters.computed == computed == (3 + 2) * 9
    np.testing.assert_array_equal(first.score, second.score)
    np.testing.assert_array_equal(first.map, second.map)


def test_tiles_in_which_nothing_counts_are_not_scored():
    whole = images(parts(1), view=View(64))
    region = np.zeros((64, 64), bool)
    region[:20] = True
    whole.dataset.region = lambda sample: region
    (batch,) = whole.batches(1)
    detector, seen = make(Blurred), []
    detector.parts[0].register_forward_pre_hook(lambda *_: None)
    original = detector.parts[0].predict
    detector.parts[0].predict = lambda b: seen.append(len(b)) or original(b)
    with torch.no_grad():
        detector.predict(batch)
    assert sum(seen) == len(tiled(whole, TILING)) == 6


@pytest.mark.parametrize("by_position", [False, True])
def test_it_is_saved_and_loaded(tmp_path, by_position):
    train, test = images(parts(4), view=View(64)), images(parts(2, seed=1), view=View(64))
    params = {"dims": 8, **SMALL}
    detector = make(PaDiM, Tiling(32, 8, by_position), **params)
    detector.fit(train, np.random.default_rng(0))
    model_folder.save(tmp_path, detector, "padim", params)
    loaded = model_folder.load(tmp_path).detector
    assert isinstance(loaded, TiledDetector)
    assert loaded.tiling == detector.tiling
    np.testing.assert_array_equal(predict(loaded, test).score, predict(detector, test).score)


def test_a_run_with_tiles_finds_what_is_small(tmp_path):
    """Toy's defects, in tiles at four times the area, through train, the saved model and predict."""
    (run,) = api.train(
        "patchcore", "toy", categories=["metal"], data_params={"count": 8}, protocol="uniform@192,tiles=96/32",
        store=tmp_path, coreset=0.1,
    )  # fmt: skip
    values = {row.metric: row.value for row in run.rows}
    assert values["image_auroc"] > 0.85
    assert values["pixel_auroc"] > 0.8
    assert "tiles=96/32" in run.result.spec.protocol
    model = api.load(run.folder)
    image = np.random.default_rng(0).integers(0, 256, (100, 80, 3), np.uint8)
    (found,) = api.predict(model, image)
    assert found.map.shape == (100, 80)
